//! `vectorizer-node doctor`: whether nodes hold the same, by the digests that they give over their REST APIs.
//!
//! A digest belongs to a position, so that two nodes can be compared while they are written to: both are asked again and
//! again until each has named a digest at one and the same position. The first node is what the others are compared with.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use vectorizer_api::client::{Client, ClientError};
use vectorizer_api::replication::{CollectionDigest, Digests};
use vectorizer_replication::position::Position;

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
        /// The collections that differ; empty when the digests of all collections are the same and only the whole is not.
        collections: Vec<Difference>,
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
    last: Option<Result<Position, ClientError>>,
}

impl Heard {
    fn note(&mut self, answer: Result<Digests, ClientError>) {
        self.last = Some(answer.as_ref().map(|d| d.position).map_err(Clone::clone));
        if let Ok(digests) = answer {
            self.at.insert(digests.position, digests);
        }
        while self.at.len() > REMEMBERED {
            self.at.pop_first();
        }
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            None => f.write_str("was not asked"),
            Some(Ok(position)) => write!(f, "was last at {position}"),
            Some(Err(error)) => write!(f, "did not answer: {error}"),
        }
    }
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
    let common = first.at.iter().rev().find_map(|(position, of_first)| {
        let of_other = other.at.get(position)?;
        Some((*position, of_first, of_other))
    });
    let Some((at, of_first, of_other)) = common else {
        return Verdict::NotCompared(format!(
            "never seen at the same position: the first {first}, this one {other}"
        ));
    };
    if of_first.total == of_other.total {
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
        Verdict::Different { .. } => DIFFERENT,
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
        Some(found) => format!(
            "{} vectors, incarnation {}, digest {}",
            found.count, found.incarnation, found.digest
        ),
    }
}
