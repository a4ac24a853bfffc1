//! NetworkPolicy: only the needed traffic. Clients of the namespace reach the API, through the gateway alone
//! where there is one; whoever scrapes reaches the admin port, which holds no data. Stores are named in
//! Secrets that the operator never reads: the way out is open for DNS, and for TCP to the ports that the
//! service names, or to all.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{
    service,
    target::{self, Component, Labels, Target, matching},
};
use crate::model::child::{Child, ChildKind, ChildRef, label};

/// The policy of all pods of the service, the gateway's included, and the one that lets clients reach the
/// gateway. What several policies allow adds up.
pub fn children(target: &Target<'_>) -> Vec<Child> {
    let mut pods = target.selector(Component::Dataplane);
    pods.remove(label::COMPONENT);
    let gateways = matching(target.selector(Component::Gateway));
    let clients = if is_closed(target) { gateways.clone() } else { LabelSelector::default() };
    let admin = NetworkPolicyIngressRule { ports: Some(vec![port("TCP", 9090)]), from: None };
    let all = NetworkPolicySpec {
        egress: Some(egress(target, &pods)),
        ingress: Some(vec![api(clients), admin]),
        pod_selector: Some(matching(pods)),
        policy_types: Some(vec!["Egress".to_owned(), "Ingress".to_owned()]),
    };
    let gateway = target.validated.gateway.as_ref().map(|_| {
        let spec = NetworkPolicySpec {
            egress: None,
            ingress: Some(vec![api(LabelSelector::default())]),
            pod_selector: Some(gateways),
            policy_types: Some(vec!["Ingress".to_owned()]),
        };
        child(target, gateway_name(target), Component::Gateway, spec)
    });
    let all = child(target, target.name().to_owned(), Component::Dataplane, all);
    [all].into_iter().chain(gateway).collect()
}

fn child(target: &Target<'_>, name: String, component: Component<'_>, spec: NetworkPolicySpec) -> Child {
    let policy = NetworkPolicy { metadata: target.metadata(name, component), spec: Some(spec) };
    target::child(ChildKind::NetworkPolicy, &policy)
}

/// Where pods with these labels may connect to.
fn egress(target: &Target<'_>, pods: &Labels) -> Vec<NetworkPolicyEgressRule> {
    let to = |ports: Vec<NetworkPolicyPort>| NetworkPolicyEgressRule { ports: Some(ports), to: None };
    let dns = to(vec![port("UDP", 53)]);
    let Some(ports) = &target.validated.egress_ports else {
        return vec![dns, to(vec![NetworkPolicyPort { end_port: Some(65535), ..port("TCP", 1) }])];
    };
    let pipeline = &target.settings().pipeline;
    let payments = pipeline.payments.http.as_ref().map(|http| http.url.as_str());
    let issuers = target.settings().security.issuers.iter();
    let issuers = issuers.flat_map(|one| [Some(one.issuer.as_str()), one.jwks_uri.as_deref()]);
    let called = [payments, pipeline.notifications.webhook_url.as_deref()].into_iter().chain(issuers);
    let called = called.flatten().filter_map(port_of);
    // an answer that is too long for UDP comes by TCP
    let ports: BTreeSet<u16> = called.chain(ports.iter().copied()).chain([53]).collect();
    let ports = to(ports.into_iter().map(|number| port("TCP", number)).collect());
    let each_other = NetworkPolicyEgressRule { ports: None, to: Some(vec![peer(matching(pods.clone()))]) };
    vec![dns, ports, each_other]
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(number.into())),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    }
}

fn peer(pods: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(pods), ..NetworkPolicyPeer::default() }
}

fn port_of(url: &str) -> Option<u16> {
    let url: http::Uri = url.parse().ok()?;
    url.port_u16().or(match url.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

/// From these pods of the namespace to the API.
fn api(from: LabelSelector) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: Some(vec![peer(from)]), ports: Some(vec![port("TCP", 8080)]) }
}

fn gateway_name(target: &Target<'_>) -> String {
    target.name_of("gateway")
}

/// Whether only the gateway may reach the pods: once clients are led to it, and may reach it.
fn is_closed(target: &Target<'_>) -> bool {
    let reference = ChildRef { kind: ChildKind::NetworkPolicy, name: gateway_name(target) };
    let is_open = target.observed.children.iter().any(|live| live.reference == reference);
    target.validated.gateway.is_some() && is_open && !service::reaches_pods(target)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixture::{apply, observed_with, settle},
        model::{
            child::APP,
            observed::{Observed, ObservedPod},
            plan::Plan,
        },
        rollout::plan,
        validate::validate,
    };

    fn shop(gateway: &Value) -> Observed {
        observed_with(|spec| {
            spec["networkPolicy"] = json!(true);
            spec["gateway"] = gateway.clone();
        })
    }

    fn look(observed: &mut Observed) -> Plan {
        let plan = plan(observed, &validate(observed));
        apply(observed, &plan);
        plan
    }

    /// Who may reach port 8080 of the policy's pods.
    fn from(plan: &Plan, name: &str) -> Option<Value> {
        let mut policies =
            plan.children.iter().filter(|child| child.reference.kind == ChildKind::NetworkPolicy);
        let policy = policies.find(|child| child.reference.name == name)?;
        let rule = &policy.body["spec"]["ingress"][0];
        assert_eq!(rule["ports"][0]["port"], 8080);
        Some(rule["from"][0]["podSelector"].clone())
    }

    #[test]
    fn pods_get_out_to_the_ports_that_are_named_and_to_each_other() {
        let egress = |ports: Value| {
            let mut observed = observed_with(|spec| {
                spec["networkPolicy"] = json!(true);
                spec["egressPorts"] = ports;
            });
            let plan = look(&mut observed);
            let policy =
                plan.children.iter().find(|child| child.reference.kind == ChildKind::NetworkPolicy).unwrap();
            policy.body["spec"]["egress"].clone()
        };
        let dns = json!({ "ports": [{ "port": 53, "protocol": "UDP" }] });
        let all = json!({ "ports": [{ "port": 1, "endPort": 65535, "protocol": "TCP" }] });
        assert_eq!(egress(Value::Null), json!([dns, all]));
        let tcp = |port: u16| json!({ "port": port, "protocol": "TCP" });
        let own = json!({ "matchLabels": { label::NAME: APP, label::INSTANCE: "shop" } });
        let named =
            json!([dns, { "ports": [tcp(53), tcp(3306), tcp(6379)] }, { "to": [{ "podSelector": own }] }]);
        assert_eq!(egress(json!([6379, 3306])), named);
        for (url, port) in [
            ("https://pay.example.com/v1", Some(443)),
            ("http://hooks:8081", Some(8081)),
            ("http://hooks/a", Some(80)),
            ("hooks", None),
        ] {
            assert_eq!(port_of(url), port, "{url}");
        }
    }

    #[test]
    fn without_a_gateway_the_namespace_reaches_the_pods() {
        let mut observed = shop(&Value::Null);
        for _ in 0..2 {
            let plan = look(&mut observed);
            assert_eq!((from(&plan, "shop"), from(&plan, "shop-gateway")), (Some(json!({})), None));
        }
    }

    #[test]
    fn behind_a_gateway_only_the_gateway_reaches_the_pods() {
        let mut observed = shop(&json!({}));
        assert_eq!(from(&look(&mut observed), "shop"), Some(json!({})), "until they may reach the gateway");
        let plan = look(&mut observed);
        assert_eq!(from(&plan, "shop-gateway"), Some(json!({})), "clients reach the gateway");
        let gateway = plan.children.iter().find(|child| {
            child.reference == ChildRef { kind: ChildKind::Deployment, name: "shop-gateway".to_owned() }
        });
        let labels = &gateway.unwrap().body["spec"]["template"]["metadata"]["labels"];
        let selector = from(&plan, "shop").unwrap()["matchLabels"].clone();
        assert!(
            selector.as_object().unwrap().iter().all(|(name, value)| labels[name] == *value),
            "{selector}"
        );
        assert_eq!(selector[label::COMPONENT], "gateway");
        let policy =
            plan.children.iter().find(|child| child.reference.kind == ChildKind::NetworkPolicy).unwrap();
        let admin = &policy.body["spec"]["ingress"][1];
        assert_eq!(
            (&admin["ports"][0]["port"], admin.get("from")),
            (&json!(9090), None),
            "the operator asks pods there"
        );
        assert_eq!(look(&mut observed), plan, "and so it stays");
    }

    #[test]
    fn the_pods_close_after_clients_have_gone_over_and_open_before_they_come_back() {
        let mut observed = shop(&Value::Null);
        settle(&mut observed);
        observed.service = shop(&json!({})).service;
        // No canary takes the change first where it is not known what ran before.
        let is_known = |name: &str| ["shop-main", "shop-catalog", "shop-last-good"].contains(&name);
        observed
            .children
            .retain(|live| live.reference.kind == ChildKind::Service || !is_known(&live.reference.name));
        for _ in 0..2 {
            let plan = look(&mut observed);
            assert_eq!(from(&plan, "shop"), Some(json!({})), "nobody could take over yet");
        }
        observed.pods.push(ObservedPod {
            name: "shop-gateway-0".to_owned(),
            ready: true,
            ..ObservedPod::default()
        });
        assert_eq!(from(&look(&mut observed), "shop"), Some(json!({})), "clients go over first");
        let plan = look(&mut observed);
        assert_ne!(from(&plan, "shop"), Some(json!({})));
        observed.service = shop(&Value::Null).service;
        let plan = look(&mut observed);
        assert_eq!((from(&plan, "shop"), from(&plan, "shop-gateway")), (Some(json!({})), None));
        let place = |kind| plan.children.iter().position(|child| child.reference.kind == kind);
        assert!(place(ChildKind::NetworkPolicy) < place(ChildKind::Service));
    }
}
