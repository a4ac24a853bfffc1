//! Services: one that clients call, and one per group by which the gateway finds the group's pods.

use crds::service::exposure::Exposure;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::target::{self, Component, Target};
use crate::model::{
    child::{Child, ChildKind, Live, label},
    validated::Group,
};

/// Port 80 of the service's name, or 443 over TLS: the gateway where there is one, else the pods that serve
/// every pool. A gateway that comes later takes over when it is ready: clients must always find somebody.
pub fn front(target: &Target<'_>) -> Child {
    let (component, selector) = if target.validated.gateway.is_some() && !is_awaited(target) {
        (Component::Gateway, target.selector(Component::Gateway))
    } else {
        let mut selector = target.selector(Component::Dataplane);
        selector.insert(label::SERVES.to_owned(), "all".to_owned());
        (Component::Dataplane, selector)
    };
    let scheme = reached(target);
    let port = ServicePort { port: if scheme == "https" { 443 } else { 80 }, ..port(scheme, scheme) };
    let Exposure { kind, annotations, load_balancer_class } = target.validated.exposure.clone();
    let spec = ServiceSpec {
        type_: Some(kind.name().to_owned()),
        load_balancer_class,
        selector: Some(selector),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    let mut metadata = target.metadata(target.name().to_owned(), component);
    metadata.annotations = Some(annotations);
    target::child(ChildKind::Service, &Service { metadata, spec: Some(spec), ..Service::default() })
}

/// Whether clients still reach the pods and no gateway could take over.
fn is_awaited(target: &Target<'_>) -> bool {
    let observed = target.observed;
    let serve = |gateway: bool| {
        observed.pods.iter().any(|pod| pod.group.is_none() == gateway && pod.ready && !pod.terminating)
    };
    reaches_pods(target) && serve(false) && !serve(true)
}

/// Whether clients reach the pods themselves until now.
pub fn reaches_pods(target: &Target<'_>) -> bool {
    let selector = front_of(target).and_then(|live| live.object.data.pointer("/spec/selector"));
    selector.is_some_and(|selector| selector[label::COMPONENT] == Component::Dataplane.name())
}

/// How clients reach the API: as before a change to TLS or from it for as long as no pod of the change is
/// ready, so that one which does not work takes nothing away.
fn reached(target: &Target<'_>) -> &'static str {
    let (wanted, observed) = (scheme(target), target.observed);
    let former = front_of(target).and_then(|live| live.object.data.pointer("/spec/ports/0/name")?.as_str());
    let former = ["http", "https"].into_iter().find(|scheme| former == Some(scheme));
    let gateway = target.validated.gateway.is_some() && !is_awaited(target);
    let is_served = observed.pods.iter().any(|pod| {
        let new = pod.rolling.as_ref() == Some(&target.validated.rolling);
        pod.group.is_none() == gateway && pod.job.is_none() && new && pod.ready && !pod.terminating
    });
    former.filter(|_| !is_served).unwrap_or(wanted)
}

fn front_of<'a>(target: &Target<'a>) -> Option<&'a Live> {
    let mut children = target.observed.children.iter();
    children.find(|live| live.reference.kind == ChildKind::Service && live.reference.name == target.name())
}

/// How the API is served.
fn scheme(target: &Target<'_>) -> &'static str {
    if target.settings().security.tls_secret.is_some() { "https" } else { "http" }
}

/// A headless Service: its DNS name resolves to the ready pods of the group, and only to those.
pub fn of_group(target: &Target<'_>, group: &Group) -> Child {
    let component = Component::Group(&group.name);
    let port = ServicePort { port: 8080, ..port("http", scheme(target)) };
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        selector: Some(target.selector(component)),
        ports: Some(vec![port]),
        ..cluster_ip()
    };
    child(target, target.name_of(&group.name), component, spec)
}

/// To the API's port of the pods, for which the number is still to be said.
fn port(name: &str, scheme: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        target_port: Some(IntOrString::String("http".to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(scheme.to_owned()),
        ..ServicePort::default()
    }
}

fn cluster_ip() -> ServiceSpec {
    ServiceSpec { type_: Some("ClusterIP".to_owned()), ..ServiceSpec::default() }
}

fn child(target: &Target<'_>, name: String, component: Component<'_>, spec: ServiceSpec) -> Child {
    let metadata = target.metadata(name, component);
    target::child(ChildKind::Service, &Service { metadata, spec: Some(spec), ..Service::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixture::{apply, observed, observed_with, settle, validated},
        model::{observed::Observed, plan::Plan},
        rollout::plan,
        validate::validate,
    };

    fn planned(observed: &Observed) -> Plan {
        plan(observed, &validate(observed))
    }

    /// The port that clients call, and how.
    fn front(plan: &Plan) -> (Value, Value) {
        let mut children = plan.children.iter();
        let front = children
            .find(|child| child.reference.kind == ChildKind::Service && child.reference.name == "shop");
        let port = &front.unwrap().body["spec"]["ports"][0];
        (port["port"].clone(), port["appProtocol"].clone())
    }

    #[test]
    fn clients_outside_reach_it_as_its_author_says() {
        let plan = planned(&observed_with(|spec| {
            spec["service"] = json!({
                "type": "LoadBalancer",
                "annotations": { "external-dns.alpha.kubernetes.io/hostname": "shop.example.com" },
                "loadBalancerClass": "example.com/internal",
            });
        }));
        let of = |name: &str| {
            let mut children = plan.children.iter();
            let found = children
                .find(|child| child.reference.kind == ChildKind::Service && child.reference.name == name);
            found.unwrap().body.clone()
        };
        let front = of("shop");
        assert_eq!(front["spec"]["type"], "LoadBalancer");
        assert_eq!(front["spec"]["loadBalancerClass"], "example.com/internal");
        let annotations = front["metadata"]["annotations"].as_object().unwrap();
        assert!(annotations.contains_key("external-dns.alpha.kubernetes.io/hostname"));
        assert_eq!(of("shop-main")["spec"]["type"], "ClusterIP", "nobody but the gateway asks for a group");
        let wrong = validate(&observed_with(|spec| {
            spec["service"] = json!({ "loadBalancerClass": "example.com/internal" });
        }));
        assert_eq!(wrong.unwrap_err()[0].path, "spec.service.loadBalancerClass");
    }

    #[test]
    fn a_change_to_tls_moves_the_port_once_a_pod_of_it_is_ready() {
        let (plain, over_tls) = ((json!(80), json!("http")), (json!(443), json!("https")));
        let mut observed = observed();
        settle(&mut observed);
        let tls = |spec: &mut Value| spec["security"]["tls"] = json!({ "secretRef": { "name": "shop-tls" } });
        observed.service = observed_with(tls).service;
        observed.secrets.insert("shop-tls".to_owned(), "1".to_owned());
        let plan = planned(&observed);
        assert_eq!((plan.held, front(&plan)), (None, plain.clone()));
        apply(&mut observed, &plan);
        let mut new = observed.pods[0].clone();
        (new.rolling, new.ready) = (Some(validated(&observed).rolling), false);
        observed.pods.push(new);
        assert_eq!(front(&planned(&observed)), plain, "it only starts");
        let new = observed.pods.last_mut().unwrap();
        (new.ready, new.terminating) = (true, true);
        assert_eq!(front(&planned(&observed)), plain, "it ends again");
        observed.pods.last_mut().unwrap().terminating = false;
        let plan = planned(&observed);
        assert_eq!(front(&plan), over_tls);
        apply(&mut observed, &plan);
        observed.pods.pop();
        assert_eq!(front(&planned(&observed)), over_tls, "it does not go back");
    }
}
