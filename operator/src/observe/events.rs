//! What Kubernetes says about objects that do not come: their events, asked for by field selector and only while
//! something is missing, and what of them still holds. Events stay for an hour; whatever happened since takes their
//! word away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use super::Sources;
use crate::api::{shortened, words};
use crate::world::Trouble;

/// How long what was heard about an object is not asked for again.
const HEARD_FOR: Duration = Duration::from_secs(5);
/// Events that are read of one object.
const MOST: u32 = 200;
/// Longest message of an event that is passed on, in bytes.
const WORDS: usize = 600;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// When it happened last.
    at: Timestamp,
    warning: bool,
    trouble: Trouble,
}

/// What was heard of each object, by uid.
pub type Heard = BTreeMap<String, (Instant, Vec<Said>)>;

/// The events of one object, oldest first. Where they may not be read, there are none.
pub(super) async fn about(
    from: &Sources<'_>,
    heard: &mut Heard,
    namespace: &str,
    kind: &str,
    name: &str,
    uid: &str,
) -> Vec<Said> {
    heard.retain(|_, (at, _)| at.elapsed() < HEARD_FOR);
    if let Some((_, said)) = heard.get(uid) {
        return said.clone();
    }
    let api: Api<Event> = Api::namespaced(from.client.clone(), namespace);
    let of =
        format!("involvedObject.kind={kind},involvedObject.name={name},involvedObject.uid={uid}");
    let said = match api
        .list(&ListParams::default().fields(&of).limit(MOST))
        .await
    {
        Ok(list) => in_order(&list.items),
        Err(error) => {
            tracing::debug!(
                kind,
                name,
                error = words(&error),
                "its events cannot be read"
            );
            Vec::new()
        }
    };
    heard.insert(uid.to_owned(), (Instant::now(), said.clone()));
    said
}

/// Events as what they say, oldest first.
pub(super) fn in_order(events: &[Event]) -> Vec<Said> {
    let mut said: Vec<Said> = events.iter().filter_map(said).collect();
    said.sort_by_key(|said| said.at);
    said
}

fn said(event: &Event) -> Option<Said> {
    let series = event
        .series
        .as_ref()
        .and_then(|s| s.last_observed_time.as_ref());
    let at = series.or(event.event_time.as_ref()).map(|t| t.0);
    // Some reporters count in the older fields, others in the newer.
    let at = at.max(event.last_timestamp.as_ref().map(|t| t.0));
    Some(Said {
        at: at.or(event.metadata.creation_timestamp.as_ref().map(|t| t.0))?,
        warning: event.type_.as_deref() == Some("Warning"),
        trouble: Trouble {
            reason: event.reason.clone()?,
            message: shortened(event.message.as_deref().unwrap_or_default(), WORDS),
        },
    })
}

/// The last word about an object, if it is a warning.
pub(super) fn last_word(said: &[Said]) -> Option<Trouble> {
    let last = said.last().filter(|said| said.warning)?;
    Some(last.trouble.clone())
}

/// The last warning about an object that is still on its way.
pub(super) fn last_warning(said: &[Said]) -> Option<Trouble> {
    let last = said.iter().rfind(|said| said.warning)?;
    Some(last.trouble.clone())
}

/// The last word of a StatefulSet about one of its pods, if it is a warning: why it could not be made.
pub(super) fn about_pod(said: &[Said], pod: &str) -> Option<Trouble> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.');
    let names = |said: &&Said| said.trouble.message.split(word).any(|word| word == pod);
    let last = said.iter().rfind(names).filter(|said| said.warning)?;
    let Trouble { reason, message } = last.trouble.clone();
    // "create Pod X in StatefulSet Y failed error: …"
    let message = match message.split_once(" failed error: ") {
        Some((_, why)) => why.to_owned(),
        None => message,
    };
    Some(Trouble { reason, message })
}

/// The last warning with that reason.
pub(super) fn with_reason<'s>(said: &'s [Said], reason: &str) -> Option<&'s Trouble> {
    let of = |said: &&Said| said.warning && said.trouble.reason == reason;
    Some(&said.iter().rfind(of)?.trouble)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(at: u32, kind: &str, reason: &str, message: &str) -> Event {
        let at = format!("2026-01-01T00:00:{at:02}Z");
        serde_json::from_value(json!({
            "metadata": { "name": "x" }, "involvedObject": {}, "lastTimestamp": at,
            "type": kind, "reason": reason, "message": message,
        }))
        .unwrap()
    }

    fn refused(at: u32, pod: &str) -> Event {
        let text = format!(
            "create Pod {pod} in StatefulSet demo-replica failed error: pods \"{pod}\" is forbidden: exceeded quota: few"
        );
        event(at, "Warning", "FailedCreate", &text)
    }

    #[test]
    fn why_a_pod_could_not_be_made_is_said_in_the_api_servers_words() {
        let said = in_order(&[refused(3, "demo-replica-1"), refused(9, "demo-replica-10")]);
        let why = about_pod(&said, "demo-replica-1").unwrap();
        assert_eq!(why.reason, "FailedCreate");
        assert_eq!(
            why.message,
            "pods \"demo-replica-1\" is forbidden: exceeded quota: few"
        );
        assert_eq!(about_pod(&said, "demo-replica-0"), None);
    }

    #[test]
    fn a_pod_that_was_made_since_is_not_missing_for_the_old_reason() {
        let made = "create Pod demo-replica-1 in StatefulSet demo-replica successful";
        let later = event(5, "Normal", "SuccessfulCreate", made);
        let said = in_order(&[later, refused(3, "demo-replica-1")]);
        assert_eq!(about_pod(&said, "demo-replica-1"), None);
        assert!(about_pod(&in_order(&[refused(3, "demo-replica-1")]), "demo-replica-1").is_some());
    }

    #[test]
    fn the_last_word_counts_and_an_older_warning_does_not() {
        let mount = event(
            2,
            "Warning",
            "FailedMount",
            "secret \"demo-auth\" not found",
        );
        let started = event(4, "Normal", "Started", "Started container node");
        let said = in_order(&[started.clone(), mount.clone()]);
        assert_eq!(last_word(&said), None);
        assert_eq!(last_warning(&said).unwrap().reason, "FailedMount");
        let again = event(
            6,
            "Warning",
            "FailedMount",
            "secret \"demo-auth\" not found",
        );
        let said = in_order(&[again, started, mount]);
        assert_eq!(
            last_word(&said).unwrap().to_string(),
            "FailedMount: secret \"demo-auth\" not found"
        );
    }

    #[test]
    fn an_event_of_the_newer_kind_is_as_old_as_it_was_last_observed() {
        let mut series = event(1, "Warning", "FailedScheduling", "0/3 nodes are available");
        let fields = json!({ "count": 3, "lastObservedTime": "2026-01-01T00:00:09.000000Z" });
        series.series = Some(serde_json::from_value(fields).unwrap());
        let bound = event(5, "Normal", "WaitForFirstConsumer", "waiting");
        assert!(last_word(&in_order(&[series, bound])).is_some());
    }
}
