//! The fourth step: makes the cluster as planned. What already is as planned is not written.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use crds::service::FlyweightService;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{
        DeleteParams, DynamicObject, GetParams, Patch, PatchParams, PostParams, Preconditions,
        PropagationPolicy,
    },
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    api::ask,
    context::Context,
    drift,
    model::{
        applied::Applied,
        child::{APP, Child, ChildKind, ChildRef, Live, MANAGER, annotation, is_child_of, label},
        error::Error,
        notice::{Notification, Subject},
        observed::Observed,
        plan::Plan,
    },
};

const KEY_BYTES: usize = 32;

/// Carries out the plan, step by step, up to the first failure.
pub async fn apply(plan: &Plan, observed: &Observed, context: &Context) -> Applied {
    let mut children: BTreeMap<ChildRef, Live> =
        observed.children.iter().map(|live| (live.reference.clone(), live.clone())).collect();
    let step = Step { observed, context, done: Mutex::default() };
    let (outcome, again) = match step.all(plan, &mut children).await {
        Ok(again) => (Ok(()), again),
        Err(error) => (Err(error), false),
    };
    let changed = step.announce().await;
    Applied { children: children.into_values().collect(), outcome, again, changed }
}

struct Step<'a> {
    observed: &'a Observed,
    context: &'a Context,
    /// What `kubectl describe` shows: the objects by what was done to them.
    done: Mutex<BTreeMap<&'static str, Vec<String>>>,
}

impl Step<'_> {
    /// All steps; whether to look again soon.
    async fn all(&self, plan: &Plan, children: &mut BTreeMap<ChildRef, Live>) -> Result<bool, Error> {
        let just_did = |child: &ChildRef, hash| {
            self.context.memory.just_did(&self.observed.uid, child, hash, Instant::now())
        };
        let mut again = false;
        if let Some(name) = &plan.key_to_make {
            // The pods need it, and its version: both are known as soon as the watch shows it, which wakes
            // the next reconcile.
            self.make_key(name).await?;
            return Ok(again);
        }
        if let Some(replicas) = plan.replicas_to_seed {
            self.seed(replicas).await?;
        }
        for child in plan.restore.iter().chain(&plan.children) {
            let live = children.get(&child.reference);
            if let Some(live) = live.filter(|live| self.is_current(child, live)) {
                tracing::trace!(child = ?live.reference, "is as it should be");
                continue;
            }
            if just_did(&child.reference, Some(&child.hash)) {
                again = true;
                continue;
            }
            match self.put(child, live).await {
                Ok(live) => _ = children.insert(live.reference.clone(), live),
                // pods run as whoever it is, and it stays its author's
                Err(Error::Foreign { .. }) if child.reference.kind == ChildKind::ServiceAccount => {}
                Err(error) => return Err(error),
            }
        }
        for (reference, replicas) in &plan.resize {
            self.resize(reference, *replicas).await?;
        }
        for reference in &plan.prune {
            if just_did(reference, None) {
                again = true;
            } else if let Some(live) = children.get(reference) {
                self.prune(live).await?;
            }
            children.remove(reference);
        }
        for notification in &plan.notifications {
            if self.context.memory.just_notified(&self.observed.uid, &notification.pod, Instant::now()) {
                again = true;
            } else {
                self.notify(notification).await?;
            }
        }
        Ok(again)
    }

    fn api(&self, reference: &ChildRef) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.context.client.clone(),
            &self.observed.namespace,
            &reference.kind.resource(),
        )
    }

    /// Whether a write would change nothing: the object was applied with this content, and nobody has changed
    /// it since.
    fn is_current(&self, child: &Child, live: &Live) -> bool {
        let object = &live.object;
        let covers = || {
            let live = serde_json::to_value(&**object);
            live.is_ok_and(|live| !drift::differs(&child.body, &live))
        };
        object.metadata.deletion_timestamp.is_none()
            && live.annotation(annotation::APPLIED) == Some(&child.hash)
            && (self.context.memory.is_answer(&self.observed.uid, live, &child.hash) || covers())
    }

    /// Creates or changes a child.
    async fn put(&self, child: &Child, live: Option<&Live>) -> Result<Live, Error> {
        let ChildRef { kind, name } = &child.reference;
        let api = self.api(&child.reference);
        let before = match live {
            Some(live) => live.object.resource_version(),
            None => self.not_foreign(&api, &child.reference).await?,
        };
        // By force only what is known to be ours: what somebody else made since it was asked for is a
        // conflict where it differs.
        let parameters = PatchParams { force: before.is_some(), ..PatchParams::apply(MANAGER) };
        let patch = Patch::Apply(&child.body);
        let request = api.patch(name, &parameters, &patch);
        let mut object = self.attempt("apply", &child.reference, request).await?;
        if let Some(patch) =
            serde_json::to_value(&object).ok().and_then(|object| drift::excess(&child.body, &object))
        {
            // An apply leaves alone what another manager added.
            let (parameters, patch) = (managed(), Patch::Merge(&patch));
            let request = api.patch(name, &parameters, &patch);
            object = self.attempt("patch", &child.reference, request).await?;
        }
        drift::foreign::keep(object.managed_fields_mut());
        let memory = &self.context.memory;
        let repaired = memory.has_written(&self.observed.uid, &child.reference, &child.hash)
            || live.is_some_and(|live| live.annotation(annotation::APPLIED) == Some(&child.hash));
        let changed = before != object.resource_version();
        let object = Arc::new(object);
        memory.wrote(&self.observed.uid, &child.reference, &child.hash, &object);
        if changed {
            let reason = match (repaired, before) {
                (true, _) => "Repaired",
                (false, None) => "Created",
                (false, Some(_)) => "Updated",
            };
            if repaired {
                self.context.metrics.repaired(kind.name());
            }
            self.did(reason, format!("{} {name}", kind.name()));
        }
        Ok(Live { reference: child.reference.clone(), object })
    }

    /// A child that is not in the cache may still be there without its labels; then it must be ours. Returns
    /// its resource version.
    ///
    /// The answer comes from the API server's own cache, which is cheaper and may be a moment old; so `put`
    /// uses no force where nothing was found.
    async fn not_foreign(&self, api: &Api<DynamicObject>, child: &ChildRef) -> Result<Option<String>, Error> {
        let any = GetParams::any();
        let question = api.get_metadata_opt_with(&child.name, &any);
        let found = ask("get", child.kind.name(), &child.name, question).await?;
        match found {
            Some(found) if !is_child_of(&found, &self.observed.uid, &self.observed.name) => {
                Err(Error::Foreign { object: format!("{} {}", child.kind.name(), child.name) })
            }
            found => Ok(found.and_then(|found| found.resource_version())),
        }
    }

    /// Tries to change a child once a second has passed since the end of the last attempt: whatever the
    /// reason is, an object is not changed more often.
    async fn attempt<T>(
        &self,
        verb: &'static str,
        child: &ChildRef,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let (memory, uid) = (&self.context.memory, &self.observed.uid);
        tokio::time::sleep(memory.next_try(uid, child, Instant::now())).await;
        let done = self.context.writer.write(verb, child.kind.name(), &child.name, request).await;
        memory.tried(uid, child, Instant::now());
        done
    }

    async fn prune(&self, live: &Live) -> Result<(), Error> {
        let ChildRef { kind, name } = &live.reference;
        // Exactly the object that was looked at, not a newer one of the same name.
        let preconditions = Preconditions { uid: live.object.uid(), resource_version: None };
        let parameters = DeleteParams {
            preconditions: Some(preconditions),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let api = self.api(&live.reference);
        match self.context.writer.write("delete", kind.name(), name, api.delete(name, &parameters)).await {
            Ok(_) => self.did("Pruned", format!("{} {name}", kind.name())),
            Err(Error::Api { source, .. }) if is_gone(&source) => (),
            Err(error) => return Err(error),
        }
        self.context.memory.deleted(&self.observed.uid, &live.reference);
        Ok(())
    }

    /// Changes the number of pods of a Deployment, and nothing else of it.
    async fn resize(&self, reference: &ChildRef, replicas: u32) -> Result<(), Error> {
        let ChildRef { kind, name } = reference;
        let patch = json!({ "spec": { "replicas": replicas } });
        let parameters = managed();
        let api = self.api(reference);
        let patch = Patch::Merge(&patch);
        let request = api.patch(name, &parameters, &patch);
        match self.attempt("patch", reference, request).await {
            Ok(_) => self.did("Updated", format!("{} {name}: {replicas} pods", kind.name())),
            Err(Error::Api { source, .. }) if is_gone(&source) => (),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tells a pod that what it has mounted changed.
    async fn notify(&self, notification: &Notification) -> Result<(), Error> {
        let Notification { pod, subject, notice } = notification;
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &self.observed.namespace);
        let (edition, record) = match subject {
            Subject::Settings => (annotation::CONFIGURATION, annotation::NOTICE),
            Subject::Secrets => (annotation::SECRETS, annotation::SECRETS_NOTICE),
        };
        let patch =
            json!({ "metadata": { "annotations": { edition: notice.edition, record: notice.record() } } });
        let parameters = managed();
        let patch = Patch::Merge(&patch);
        let request = api.patch_metadata(pod, &parameters, &patch);
        let written = self.context.writer.write("patch", "Pod", pod, request).await;
        self.context.memory.notified(&self.observed.uid, pod);
        match written {
            Ok(_) => Ok(()),
            Err(Error::Api { source, .. }) if is_gone(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the Secret with the encryption key. It has no owner: deleting a service must not make its data
    /// unreadable.
    async fn make_key(&self, name: &str) -> Result<(), Error> {
        let key: [u8; KEY_BYTES] = rand::random();
        let labels =
            [(label::NAME, APP), (label::INSTANCE, &self.observed.name), (label::MANAGED_BY, MANAGER)];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(
                    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                ),
                ..ObjectMeta::default()
            },
            data: Some([("key".to_owned(), ByteString(STANDARD.encode(key).into_bytes()))].into()),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &self.observed.namespace);
        let parameters = PostParams::default();
        let request = api.create(&parameters, &secret);
        match self.context.writer.write("create", "Secret", name, request).await {
            Ok(_) => self.did("Created", format!("Secret {name} with a new encryption key: back it up")),
            // It came in the meantime: it is used as it is.
            Err(Error::Api { source, .. }) if is_conflict(&source) => (),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Autoscalers do nothing while the total is not set.
    async fn seed(&self, replicas: u32) -> Result<(), Error> {
        let name = &self.observed.name;
        let api: Api<FlyweightService> =
            Api::namespaced(self.context.client.clone(), &self.observed.namespace);
        // Not over a total that somebody has set since.
        let version = self.observed.service.resource_version();
        let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "replicas": replicas } });
        let parameters = managed();
        let patch = Patch::Merge(&patch);
        let request = api.patch(name, &parameters, &patch);
        self.context.writer.write("patch", "FlyweightService", name, request).await.map(drop)
    }

    fn did(&self, what: &'static str, to: String) {
        tracing::info!(namespace = self.observed.namespace, service = self.observed.name, "{what} {to}");
        self.done.lock().entry(what).or_default().push(to);
    }

    /// One event for all that was done in one way: each costs as much as a child. Whether anything was done.
    async fn announce(&self) -> bool {
        let done = std::mem::take(&mut *self.done.lock());
        let any = !done.is_empty();
        for (reason, objects) in done {
            let note = format!("{reason} {}", objects.join(", "));
            self.context.events.normal(&self.observed.reference(), reason, note).await;
        }
        any
    }
}

/// Of a patch in the operator's name.
fn managed() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
