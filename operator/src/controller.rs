//! Watches and passes: each cluster is looked at when something of it changes, and again when its plan says so.
//!
//! A pass is four calls. Passes of one cluster never overlap, those of several do, up to a bound. Nothing waits inside a
//! pass: what is awaited is a reason to come back.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::select_all;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::controller::{Action, Config, Error as ControllerError, applier};
use kube_runtime::reflector::ObjectRef as Key;
use tokio::sync::{Mutex, watch};

use crate::act::{self, COMMAND, Done, Events, Refused, Targets, act, write_status};
use crate::api::words;
use crate::crd::VectorizerCluster;
use crate::observe::cache::{Caches, key};
use crate::observe::{Cordons, MOST_BYTES, ObserveError, PROBE, Remembered, Sources, observe};
use crate::plan::{FAST, Plan, SETTLED, SOON, plan, status};
use crate::report::{is_news, status_after};
use crate::telemetry::Metrics;
use crate::world::{Cluster, World};

/// Passes at once.
const CONCURRENCY: u16 = 16;
/// How long the first listing of everything may take before a pass gives up and says so.
const CACHES_WITHIN: Duration = Duration::from_secs(20);
/// For how long after a write of our own the watch may still show the resource as it was.
const OWN_WRITES_FOR: Duration = Duration::from_secs(3);
/// After how many failures in a row, which are about seven seconds, the status says that nothing is known.
const UNKNOWN_AFTER: u32 = 4;
/// How often the loop that drives everything says that it turns.
const TURN_EVERY: Duration = Duration::from_secs(5);
/// Longest pause after failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the controller is started with.
pub struct Options {
    /// Namespaces to work in; empty for all.
    pub namespaces: Vec<String>,
    /// The image for clusters that name none.
    pub node_image: String,
    /// The name of this process, for events.
    pub identity: String,
}

/// A pass that could not be made or finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not everything could be listed.
    #[error("not everything could be listed within {CACHES_WITHIN:?}: are all rights there?")]
    Caches,
    /// The API server did not answer.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The API server did not answer.
    #[error("reading the resource: {}", words(.0))]
    Read(#[source] kube::Error),
    /// The status could not be written.
    #[error(transparent)]
    Report(Refused),
}

struct Context {
    client: Client,
    caches: Caches,
    probes: vectorizer_api::client::Client,
    commands: vectorizer_api::client::Client,
    cordons: Cordons,
    events: Events,
    default_image: String,
    metrics: Arc<Metrics>,
    listed: watch::Receiver<bool>,
    known: Mutex<HashMap<Key<VectorizerCluster>, Arc<Mutex<Known>>>>,
}

#[derive(Default)]
struct Known {
    /// A cluster that was made anew under its name is another one.
    uid: Option<String>,
    remembered: Remembered,
    failures: u32,
}

/// Works until `stop` is ready.
pub async fn run(
    client: Client,
    options: Options,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), vectorizer_api::client::ClientError> {
    use futures::FutureExt;
    let stop = stop.boxed().shared();
    let scopes: Vec<Option<String>> = match options.namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let mut streams = Vec::new();
    let mut listings = Vec::new();
    for namespace in scopes {
        let (caches, triggers) = Caches::start(&client, namespace.as_deref());
        metrics.watch(caches.clusters.clone());
        let listed = listed_once(caches.clone());
        listings.push(listed.clone());
        let context = Arc::new(Context {
            client: client.clone(),
            probes: vectorizer_api::client::Client::new("http://node", PROBE)?
                .taking_at_most(MOST_BYTES),
            commands: vectorizer_api::client::Client::new("http://node", COMMAND)?
                .taking_at_most(MOST_BYTES),
            cordons: Cordons::default(),
            events: Events::new(client.clone(), options.identity.clone()),
            default_image: options.node_image.clone(),
            metrics: metrics.clone(),
            known: Mutex::default(),
            caches: caches.clone(),
            listed,
        });
        let queue = triggers.map(Ok::<_, Infallible>).take_until(stop.clone());
        let config = Config::default().concurrency(CONCURRENCY);
        let passes = applier(pass, after_error, context, caches.clusters, queue, config);
        streams.push(passes.boxed());
    }
    let everything = metrics.clone();
    tokio::spawn(async move {
        for mut listed in listings {
            if listed.wait_for(|listed| *listed).await.is_err() {
                return;
            }
        }
        everything.ready(true);
    });
    let mut passes = select_all(streams);
    let mut turn = tokio::time::interval(TURN_EVERY);
    loop {
        let outcome = tokio::select! {
            _ = turn.tick() => {
                metrics.turns();
                continue;
            }
            outcome = passes.next() => outcome,
        };
        match outcome {
            None => return Ok(()),
            // Told where the pause is decided.
            Some(
                Ok(_)
                | Err(ControllerError::ObjectNotFound(_) | ControllerError::ReconcilerFailed(_, _)),
            ) => {}
            Some(Err(error)) => tracing::warn!(%error, "a pass could not begin"),
        }
    }
}

/// Becomes true once everything has been listed. One task waits for that, and everybody else for the task.
fn listed_once(caches: Caches) -> watch::Receiver<bool> {
    let (said, listed) = watch::channel(false);
    tokio::spawn(async move {
        if caches.ready().await.is_ok() {
            said.send_replace(true);
        }
    });
    listed
}

/// One pass over one cluster, measured.
fn pass(
    resource: Arc<VectorizerCluster>,
    context: Arc<Context>,
) -> BoxFuture<'static, Result<Action, Error>> {
    Box::pin(async move {
        let known = {
            let mut all = context.known.lock().await;
            // What was deleted is not always seen with a time of deletion.
            let existing = &context.caches.clusters;
            if all.len() > existing.len() {
                all.retain(|key, _| *key == self::key(&resource) || existing.get(key).is_some());
            }
            all.entry(key(&resource)).or_default().clone()
        };
        let mut known = known.lock().await;
        if known.uid != resource.uid() {
            *known = Known {
                uid: resource.uid(),
                ..Known::default()
            };
        }
        let begun = Instant::now();
        let _running = context.metrics.begin(&key(&resource).to_string());
        let outcome = Box::pin(reconcile(&resource, &context, &mut known.remembered)).await;
        let failed = match &outcome {
            Ok(passed) => passed.patience.is_some(),
            Err(_) => true,
        };
        known.failures = if failed { known.failures + 1 } else { 0 };
        if let Err(error) = &outcome
            && known.failures >= UNKNOWN_AFTER
        {
            say_unknown(&resource, &context, error, &mut known.remembered).await;
        }
        context.metrics.pass(outcome.is_ok(), begun.elapsed());
        if resource.meta().deletion_timestamp.is_some() {
            context.known.lock().await.remove(&key(&resource));
        }
        outcome.map(|passed| passed.action(known.failures))
    })
}

/// How a pass ended that could be made.
struct Passed {
    /// When to come back; `None` when something changes.
    again: Option<Duration>,
    /// The longest pause, when something was refused that may be refused again.
    patience: Option<Duration>,
}

impl Passed {
    fn well(again: Duration) -> Self {
        Passed {
            again: Some(again),
            patience: None,
        }
    }

    fn for_good() -> Self {
        Passed {
            again: None,
            patience: None,
        }
    }

    /// What is refused over and over is asked for less and less.
    fn action(&self, failures: u32) -> Action {
        let pause = self.patience.map(|longest| act::backoff(failures, longest));
        match self.again {
            Some(again) => Action::requeue(again.max(pause.unwrap_or_default())),
            None => Action::await_change(),
        }
    }
}

/// The pass itself.
async fn reconcile(
    resource: &VectorizerCluster,
    context: &Context,
    remembered: &mut Remembered,
) -> Result<Passed, Error> {
    let mut listed = context.listed.clone();
    tokio::time::timeout(CACHES_WITHIN, listed.wait_for(|listed| *listed))
        .await
        .map_err(|_| Error::Caches)?
        .map_err(|_| Error::Caches)?;
    let Some(resource) = newest(resource, context, remembered).await? else {
        return Ok(Passed::for_good());
    };
    // Owner references take everything away; nothing outside the API server is ours.
    if resource.meta().deletion_timestamp.is_some() {
        return Ok(Passed::for_good());
    }
    let cluster = match Cluster::check(&resource) {
        Ok(cluster) => cluster,
        Err(invalid) => return refuse(&resource, context, &invalid.to_string()).await,
    };
    let sources = Sources {
        client: &context.client,
        caches: &context.caches,
        nodes: &context.probes,
        cordons: &context.cordons,
        default_image: &context.default_image,
    };
    let status = resource.status.clone().unwrap_or_default();
    let world = observe(&sources, cluster, status, remembered).await?;
    let plan = plan(&world);
    let targets = Targets {
        client: &context.client,
        nodes: &context.commands,
        credentials: &remembered.credentials,
        events: &context.events,
    };
    let done = act(&targets, &resource, &world, &plan).await;
    remember(remembered, &done);
    context.metrics.promotion(&world, &done);
    report(context, &world, &plan, done, remembered).await
}

/// The resource as stored. After a write of our own, and in the middle of a promotion, the watch may be behind; asking
/// once is cheaper than planning from old knowledge, which would be refused.
async fn newest(
    resource: &VectorizerCluster,
    context: &Context,
    remembered: &mut Remembered,
) -> Result<Option<VectorizerCluster>, Error> {
    if !may_be_old(resource, remembered) {
        remembered.generation = resource.meta().generation.unwrap_or(0);
        return Ok(Some(resource.clone()));
    }
    let api: Api<VectorizerCluster> = Api::namespaced(
        context.client.clone(),
        &resource.namespace().unwrap_or_default(),
    );
    let stored = api
        .get_opt(&resource.name_any())
        .await
        .map_err(Error::Read)?;
    if let Some(stored) = &stored {
        remembered.generation = stored.meta().generation.unwrap_or(0);
        remembered.changing = is_changing(stored);
    }
    Ok(stored)
}

/// Whether what the watch shows may be older than what this process has seen or written: a spec that is older would undo
/// what was asked for since, and a status without the change that is under way would begin another.
fn may_be_old(resource: &VectorizerCluster, remembered: &Remembered) -> bool {
    let wrote = remembered
        .reported
        .is_some_and(|at| at.elapsed() < OWN_WRITES_FOR);
    let generation = resource.meta().generation.unwrap_or(0);
    wrote || generation < remembered.generation || remembered.changing || is_changing(resource)
}

fn is_changing(resource: &VectorizerCluster) -> bool {
    resource.status.as_ref().is_some_and(|s| s.target.is_some())
}

fn remember(remembered: &mut Remembered, done: &Done) {
    for (reference, _) in &done.applied {
        remembered.refusals.remove(&reference.to_string());
    }
    for (what, attempt, words) in &done.refusals {
        let (what, attempt, words) = (what.clone(), attempt.clone(), words.clone());
        remembered.refused(what, attempt, words, Instant::now());
    }
    remembered.applied.extend(done.applied.iter().cloned());
    for gone in &done.pruned {
        remembered.applied.remove(gone);
    }
    let now = Instant::now();
    let labelled = done.labelled.iter().cloned();
    remembered
        .labelled
        .extend(labelled.map(|(uid, labels)| (uid, (now, labels))));
    if done.secrets_written {
        remembered.credentials.read = None;
    }
    if done.recorded {
        remembered.reported = Some(Instant::now());
        remembered.changing = done.memory.target.is_some();
    }
}

/// Writes the status when it says something new, and says when to come back.
async fn report(
    context: &Context,
    world: &World,
    plan: &Plan,
    done: Done,
    remembered: &mut Remembered,
) -> Result<Passed, Error> {
    if done.namespace_going {
        return Ok(Passed::well(SETTLED));
    }
    if let Some(Refused::Outdated) = done.refused {
        return Ok(Passed::well(FAST));
    }
    let status = status_after(world, plan, &done);
    let stopped = done.refused.is_some();
    let refused = stopped || !done.troubles.is_empty();
    let stored = done.resource.status.clone().unwrap_or_default();
    let since = remembered.reported.map(|at| at.elapsed());
    let changing = status.target.is_some();
    if is_news(&stored, &status, since) {
        match write_status(&context.client, &done.resource, status).await {
            Ok(_) => {
                remembered.reported = Some(Instant::now());
                remembered.changing = changing;
            }
            Err(Refused::Outdated) => return Ok(Passed::well(FAST)),
            Err(error) => return Err(Error::Report(error)),
        }
    }
    Ok(match (refused, changing) {
        // Every second counts while nobody may be writing.
        (true, true) => Passed::well(FAST.max(plan.requeue)),
        (true, false) => Passed {
            again: Some(SOON.max(plan.requeue)),
            // What was forgiven is soon right again: a pod that was on its way, a replica that had to catch up.
            patience: Some(if stopped { LONGEST_PAUSE } else { SETTLED }),
        },
        (false, _) => Passed::well(plan.requeue.min(SETTLED)),
    })
}

/// A resource that cannot be worked with: its status says why, and nothing else is touched.
async fn refuse(
    resource: &VectorizerCluster,
    context: &Context,
    why: &str,
) -> Result<Passed, Error> {
    let old = resource.status.clone().unwrap_or_default();
    let generation = resource.meta().generation.unwrap_or(0);
    let next = status::invalid(&old, generation, why, Timestamp::now());
    if is_news(&old, &next, Some(Duration::ZERO)) {
        match write_status(&context.client, resource, next).await {
            Ok(_) | Err(Refused::Outdated) => {}
            Err(error) => return Err(Error::Report(error)),
        }
    }
    Ok(Passed::for_good())
}

/// What the status said before may be wrong by now: it says so, as far as it can be written at all.
async fn say_unknown(
    resource: &VectorizerCluster,
    context: &Context,
    error: &Error,
    remembered: &mut Remembered,
) {
    let stored = match newest(resource, context, remembered).await {
        Ok(Some(stored)) if stored.meta().deletion_timestamp.is_none() => stored,
        Ok(_) | Err(_) => return,
    };
    let old = stored.status.clone().unwrap_or_default();
    let generation = stored.meta().generation.unwrap_or(0);
    let next = status::unobserved(&old, generation, &error.to_string(), Timestamp::now());
    if is_news(&old, &next, Some(Duration::ZERO))
        && write_status(&context.client, &stored, next).await.is_ok()
    {
        remembered.reported = Some(Instant::now());
    }
}

/// Each failure in a row doubles the pause, for this cluster alone.
fn after_error(resource: Arc<VectorizerCluster>, error: &Error, context: Arc<Context>) -> Action {
    let failures = match context.known.try_lock() {
        Ok(known) => known
            .get(&key(&resource))
            .and_then(|k| k.try_lock().ok().map(|k| k.failures)),
        Err(_) => None,
    };
    let pause = act::backoff(failures.unwrap_or(1), LONGEST_PAUSE);
    tracing::warn!(cluster = %key(&resource), %error, ?pause, "a pass failed");
    Action::requeue(pause)
}

#[cfg(test)]
mod tests;
