//! `top`: the pods of a service with their figures, as each says itself.

use futures::future::join_all;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    args::Output,
    cluster::Cluster,
    status::{group_of, is_ready},
    tree::table,
};

const HEADINGS: [&str; 10] =
    ["POD", "GROUP", "READY", "CONFIGURATION", "RECORDS", "DISTINCT", "MEMORY", "SAVED", "HITS", "BACKLOG"];

/// Shows the pods of one service, or of all.
///
/// # Errors
/// There is none, or the API server refuses or fails.
pub async fn run(cluster: &Cluster, name: Option<&str>, output: Output) -> anyhow::Result<String> {
    let mut pods = Vec::new();
    for service in cluster.services(name).await? {
        pods.extend(
            cluster.pods(&service.name_any()).await?.into_iter().filter(|pod| group_of(pod).is_some()),
        );
    }
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    let reports = join_all(names.iter().map(|name| cluster.report(name))).await;
    let all: Vec<Value> = pods
        .iter()
        .zip(reports)
        .map(|(pod, report)| {
            let report = report.unwrap_or(Value::Null);
            json!({ "pod": pod.name_any(), "group": group_of(pod), "ready": is_ready(pod), "report": report })
        })
        .collect();
    Ok(match output {
        Output::Json => format!("{:#}\n", Value::Array(all)),
        Output::Text => table(&HEADINGS, &all.iter().map(row).collect::<Vec<_>>()),
    })
}

fn row(one: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let ready = if one["ready"] == true { "yes" } else { "no" };
    let mut row = vec![text(&one["pod"]), text(&one["group"]), ready.to_owned()];
    let report = &one["report"];
    if report.is_null() {
        row.extend(std::iter::repeat_n("-".to_owned(), HEADINGS.len() - row.len()));
        return row;
    }
    let pools = report["pools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |field: &str| pools.iter().filter_map(|pool| pool[field].as_u64()).sum::<u64>();
    let (hits, misses) = (sum("hits"), sum("misses"));
    let ratio =
        (hits * 1000).checked_div(hits + misses).map(|tenths| format!("{}.{}%", tenths / 10, tenths % 10));
    row.push(text(&report["configuration"]));
    row.extend([sum("entities").to_string(), sum("distinct").to_string()]);
    row.extend([size(sum("bytes")), size(sum("bytesSaved"))]);
    let backlog =
        if pools.iter().any(|pool| pool["backlogUnknown"] == true) { None } else { Some(sum("backlog")) };
    let backlog = backlog.map(|events| events.to_string());
    row.extend([ratio, backlog].map(|known| known.unwrap_or_else(|| "-".to_owned())));
    row
}

/// In the largest unit that leaves at least one.
fn size(bytes: u64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti"];
    let step = (0..units.len()).rev().find(|step| bytes >> (10 * step) > 0).unwrap_or(0);
    format!("{}{}", bytes >> (10 * step), units[step])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_sums_over_the_pools_of_a_pod() {
        let pool = json!({ "entities": 3, "distinct": 1, "bytes": 2048, "bytesSaved": 700, "hits": 3, "misses": 1, "backlog": 2 });
        let one = json!({ "pod": "a", "group": "main", "ready": true, "report": { "configuration": "abc", "pools": [pool, pool] } });
        assert_eq!(row(&one), ["a", "main", "yes", "abc", "6", "2", "4Ki", "1Ki", "75.0%", "4"]);
    }

    #[test]
    fn a_backlog_that_was_not_measured_is_not_said_to_be_none() {
        let pools = json!([{ "backlog": 2 }, { "backlog": 0, "backlogUnknown": true }]);
        let one = json!({ "pod": "a", "group": "main", "ready": true, "report": { "pools": pools } });
        assert_eq!(row(&one).last().map(String::as_str), Some("-"));
    }

    #[test]
    fn a_silent_pod_has_a_row_too() {
        let one = json!({ "pod": "a", "group": "main", "ready": false, "report": null });
        assert_eq!(row(&one), ["a", "main", "no", "-", "-", "-", "-", "-", "-", "-"]);
    }
}
