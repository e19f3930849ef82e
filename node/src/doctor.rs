//! `vectorizer-node doctor`: whether nodes hold the same, by the digests that they give over their REST APIs.
//!
//! A digest belongs to a position, so that two nodes can be compared while they are written to: both are asked again and
//! again until each has named a digest at one and the same position. The first node is what the others are compared with.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use vectorizer_api::client::{Client, ClientError, Timeouts};
use vectorizer_api::replication::{CollectionDigest, Digests};
use vectorizer_replication::position::Position;

use crate::config::{Credential, CredentialError, Doctor};

/// The exit code where all nodes hold the same.
pub const EQUAL: u8 = 0;
/// The exit code where a node holds something else.
pub const DIFFERENT: u8 = 1;
/// The exit code where a node could not be compared, and none was found to differ.
pub const NOT_COMPARED: u8 = 2;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);
/// Positions that are remembered of each node.
const REMEMBERED: usize = 4_096;

/// What came out for one node.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// The same as the first node at this position.
    Equal(Position),
    /// Something else at this position.
    Different {
        /// The position.
        at: Position,
        /// The collections that differ; empty when it is only the catalog or the log that does.
        collections: Vec<Difference>,
    },
    /// The logs part: each has operations that the other never had.
    Parted {
        /// The last offset that they can have in common.
        after: u64,
        /// Where the first node is.
        first: Position,
        /// Where this one is.
        other: Position,
    },
    /// In the time given, both were never at the same position, or one did not answer.
    NotCompared(String),
}

/// One collection that differs. `None` where there is no collection of that name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The name.
    pub name: String,
    /// On the first node.
    pub first: Option<CollectionDigest>,
    /// On the other.
    pub other: Option<CollectionDigest>,
}

/// What a node has answered so far.
#[derive(Default)]
struct Heard {
    at: BTreeMap<Position, Digests>,
    last: Option<Result<Digests, ClientError>>,
}

impl Heard {
    fn note(&mut self, answer: Result<Digests, ClientError>) {
        if let Ok(digests) = &answer {
            self.at.insert(digests.position, digests.clone());
        }
        self.last = Some(answer);
        while self.at.len() > REMEMBERED {
            self.at.pop_first();
        }
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            None => f.write_str("was not asked"),
            Some(Ok(digests)) => write!(f, "was last at {}", digests.position),
            Some(Err(error)) => write!(f, "did not answer: {error}"),
        }
    }
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The key cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// An address or the key is impossible.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The output takes nothing.
    #[error("writing the report: {0}")]
    Output(#[from] io::Error),
}

/// Compares the nodes, writes the verdicts to `out`, and returns the exit code.
pub async fn run(what: &Doctor, out: &mut impl Write) -> Result<u8, DoctorError> {
    let key = what.key_file.as_deref().map(Credential::open).transpose()?;
    let key = key.map(|key| String::from_utf8_lossy(&key.current()).into_owned());
    let mut nodes = Vec::new();
    for url in &what.nodes {
        let node = Client::new(url.as_str(), Timeouts::default())?;
        nodes.push(match &key {
            Some(key) => node.with_token(key),
            None => node,
        });
    }
    let verdicts = compare(&nodes, Duration::from_secs(what.wait)).await;
    report(&nodes, &verdicts, out)?;
    Ok(exit_code(&verdicts))
}

/// Compares every node with the first, for as long as `patience`. One verdict for each node but the first.
pub async fn compare(nodes: &[Client], patience: Duration) -> Vec<Verdict> {
    let deadline = Instant::now() + patience;
    let mut heard: Vec<Heard> = nodes.iter().map(|_| Heard::default()).collect();
    loop {
        let answers = nodes.iter().map(Client::replication_digest);
        let answers = futures::future::join_all(answers).await;
        for (heard, answer) in heard.iter_mut().zip(answers) {
            heard.note(answer);
        }
        let Some((first, others)) = heard.split_first() else {
            return Vec::new();
        };
        let verdicts: Vec<_> = others.iter().map(|other| judge(first, other)).collect();
        let open = |verdict: &Verdict| matches!(verdict, Verdict::NotCompared(_));
        if !verdicts.iter().any(open) || Instant::now() >= deadline {
            return verdicts;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn judge(first: &Heard, other: &Heard) -> Verdict {
    if let (Some(Ok(first)), Some(Ok(other))) = (&first.last, &other.last) {
        let (end, other_end) = (first.position.offset, other.position.offset);
        let after = first.history.common_end(end, &other.history, other_end);
        if after < end.min(other_end) {
            return Verdict::Parted {
                after,
                first: first.position,
                other: other.position,
            };
        }
    }
    let common = first.at.iter().rev().find_map(|(position, of_first)| {
        let of_other = other.at.get(position)?;
        Some((*position, of_first, of_other))
    });
    let Some((at, of_first, of_other)) = common else {
        return Verdict::NotCompared(format!(
            "never seen at the same position: the first {first}, this one {other}"
        ));
    };
    if (of_first.chain, &of_first.digest) == (of_other.chain, &of_other.digest) {
        return Verdict::Equal(at);
    }
    Verdict::Different {
        at,
        collections: differences(of_first, of_other),
    }
}

fn differences(first: &Digests, other: &Digests) -> Vec<Difference> {
    let by_name = |digests: &Digests| -> BTreeMap<String, CollectionDigest> {
        let all = digests.collections.iter().cloned();
        all.map(|c| (c.name.clone(), c)).collect()
    };
    let (first, other) = (by_name(first), by_name(other));
    let mut names: Vec<_> = first.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| Difference {
            name: name.clone(),
            first: first.get(name).cloned(),
            other: other.get(name).cloned(),
        })
        .filter(|found| found.first != found.other)
        .collect()
}

/// The exit code for these verdicts. A difference weighs more than a node that could not be compared.
pub fn exit_code(verdicts: &[Verdict]) -> u8 {
    let codes = verdicts.iter().map(|verdict| match verdict {
        Verdict::Equal(_) => EQUAL,
        Verdict::Different { .. } | Verdict::Parted { .. } => DIFFERENT,
        Verdict::NotCompared(_) => NOT_COMPARED,
    });
    let codes: Vec<_> = codes.collect();
    [DIFFERENT, NOT_COMPARED]
        .into_iter()
        .find(|code| codes.contains(code))
        .unwrap_or(EQUAL)
}

/// Writes a line for each node, and one for each collection that differs.
pub fn report(nodes: &[Client], verdicts: &[Verdict], out: &mut impl Write) -> io::Result<()> {
    let Some((first, others)) = nodes.split_first() else {
        return Ok(());
    };
    writeln!(out, "{}: compared with", first.base())?;
    for (node, verdict) in others.iter().zip(verdicts) {
        let url = node.base();
        match verdict {
            Verdict::Equal(at) => writeln!(out, "{url}: equal at {at}")?,
            Verdict::NotCompared(why) => writeln!(out, "{url}: not compared: {why}")?,
            Verdict::Parted {
                after,
                first,
                other,
            } => writeln!(
                out,
                "{url}: DIFFERENT: the logs part after offset {after}; the first is at {first}, this one at {other}"
            )?,
            Verdict::Different { at, collections } => {
                writeln!(out, "{url}: DIFFERENT at {at}")?;
                for found in collections {
                    let (first, other) = (side(&found.first), side(&found.other));
                    writeln!(out, "  {}: first {first}; here {other}", found.name)?;
                }
            }
        }
    }
    Ok(())
}

fn side(found: &Option<CollectionDigest>) -> String {
    match found {
        None => "none".to_owned(),
        Some(found) => format!("{} vectors, digest {}", found.count, found.digest),
    }
}

#[cfg(test)]
mod tests {
    use vectorizer_replication::position::{Chain, EpochStart, History};

    use super::*;

    fn heard(position: Position, epochs: &[(u64, u64)]) -> Heard {
        let entries = epochs.iter().map(|(epoch, first_offset)| EpochStart {
            epoch: *epoch,
            first_offset: *first_offset,
            chain: Chain::default(),
        });
        let mut heard = Heard::default();
        heard.note(Ok(Digests {
            position,
            chain: Chain::default(),
            history: History::new(entries.collect()).unwrap(),
            digest: String::new(),
            collections: Vec::new(),
        }));
        heard
    }

    #[test]
    fn logs_that_part_differ_wherever_they_end_and_one_that_is_behind_does_not() {
        let first = heard(Position::new(3, 90), &[(1, 1), (3, 61)]);
        let parted = heard(Position::new(2, 80), &[(1, 1), (2, 51)]);
        let behind = heard(Position::new(1, 50), &[(1, 1)]);
        assert_eq!(
            judge(&first, &parted),
            Verdict::Parted {
                after: 50,
                first: Position::new(3, 90),
                other: Position::new(2, 80)
            }
        );
        let verdict = judge(&first, &behind);
        assert!(matches!(verdict, Verdict::NotCompared(_)), "{verdict:?}");
    }

    #[test]
    fn a_difference_weighs_more_than_a_node_that_could_not_be_compared() {
        let different = Verdict::Different {
            at: Position::new(1, 1),
            collections: Vec::new(),
        };
        let open = Verdict::NotCompared(String::new());
        let equal = Verdict::Equal(Position::new(1, 1));
        assert_eq!(
            exit_code(&[equal.clone(), open.clone(), different]),
            DIFFERENT
        );
        assert_eq!(exit_code(&[equal.clone(), open]), NOT_COMPARED);
        assert_eq!(exit_code(&[equal]), EQUAL);
    }
}
