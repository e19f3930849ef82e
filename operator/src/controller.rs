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
use tokio::sync::Mutex;

use crate::act::{self, COMMAND, Done, Events, Refused, Targets, act, write_status};
use crate::crd::VectorizerCluster;
use crate::observe::cache::{Caches, key};
use crate::observe::{Cordons, ObserveError, PROBE, Remembered, Sources, observe};
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
    #[error("reading the resource: {0}")]
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
        listings.push(caches.clone());
        let context = Arc::new(Context {
            client: client.clone(),
            probes: vectorizer_api::client::Client::new("http://node", PROBE)?,
            commands: vectorizer_api::client::Client::new("http://node", COMMAND)?,
            cordons: Cordons::default(),
            events: Events::new(client.clone(), options.identity.clone()),
            default_image: options.node_image.clone(),
            metrics: metrics.clone(),
            known: Mutex::default(),
            caches: caches.clone(),
        });
        let queue = triggers.map(Ok::<_, Infallible>).take_until(stop.clone());
        let config = Config::default().concurrency(CONCURRENCY);
        let passes = applier(pass, after_error, context, caches.clusters, queue, config);
        streams.push(passes.boxed());
    }
    tokio::spawn(async move {
        let all = listings.iter().map(Caches::ready);
        if futures::future::try_join_all(all).await.is_ok() {
            metrics.ready(true);
        }
    });
    let mut passes = select_all(streams);
    while let Some(outcome) = passes.next().await {
        match outcome {
            Ok(_) => {}
            Err(ControllerError::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(%error, "a pass failed"),
        }
    }
    Ok(())
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
        let outcome = Box::pin(reconcile(&resource, &context, &mut known.remembered)).await;
        known.failures = if outcome.is_ok() {
            0
        } else {
            known.failures + 1
        };
        context.metrics.pass(outcome.is_ok(), begun.elapsed());
        if resource.meta().deletion_timestamp.is_some() {
            context.known.lock().await.remove(&key(&resource));
        }
        outcome
    })
}

/// The pass itself.
async fn reconcile(
    resource: &VectorizerCluster,
    context: &Context,
    remembered: &mut Remembered,
) -> Result<Action, Error> {
    tokio::time::timeout(CACHES_WITHIN, context.caches.ready())
        .await
        .map_err(|_| Error::Caches)?
        .map_err(|_| Error::Caches)?;
    let Some(resource) = newest(resource, context, remembered).await? else {
        return Ok(Action::await_change());
    };
    // Owner references take everything away; nothing outside the API server is ours.
    if resource.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
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
        token: token(remembered),
        events: &context.events,
    };
    let done = act(&targets, &resource, &world, &plan).await;
    remember(remembered, &done);
    context.metrics.promotion(&world, &done);
    report(context, &world, &plan, done, remembered).await
}

fn token(remembered: &Remembered) -> Option<&str> {
    let (_, credentials) = remembered.credentials.as_ref()?;
    credentials.control.as_deref()
}

/// The resource as stored. After a write of our own, and in the middle of a promotion, the watch may be behind; asking
/// once is cheaper than planning from old knowledge, which would be refused.
async fn newest(
    resource: &VectorizerCluster,
    context: &Context,
    remembered: &Remembered,
) -> Result<Option<VectorizerCluster>, Error> {
    let wrote = remembered
        .reported
        .is_some_and(|at| at.elapsed() < OWN_WRITES_FOR);
    let changing = resource.status.as_ref().is_some_and(|s| s.target.is_some());
    if !wrote && !changing {
        return Ok(Some(resource.clone()));
    }
    let api: Api<VectorizerCluster> = Api::namespaced(
        context.client.clone(),
        &resource.namespace().unwrap_or_default(),
    );
    api.get_opt(&resource.name_any()).await.map_err(Error::Read)
}

fn remember(remembered: &mut Remembered, done: &Done) {
    remembered.applied.extend(done.applied.iter().cloned());
    for gone in &done.pruned {
        remembered.applied.remove(gone);
    }
    if done.secrets_written {
        remembered.credentials = None;
    }
    if done.recorded {
        remembered.reported = Some(Instant::now());
    }
}

/// Writes the status when it says something new, and says when to come back.
async fn report(
    context: &Context,
    world: &World,
    plan: &Plan,
    done: Done,
    remembered: &mut Remembered,
) -> Result<Action, Error> {
    if done.namespace_going {
        return Ok(Action::requeue(SETTLED));
    }
    if let Some(Refused::Outdated) = done.refused {
        return Ok(Action::requeue(FAST));
    }
    let status = status_after(world, plan, &done);
    let refused = done.refused.is_some() || !done.troubles.is_empty();
    let stored = done.resource.status.clone().unwrap_or_default();
    let since = remembered.reported.map(|at| at.elapsed());
    let changing = status.target.is_some();
    if is_news(&stored, &status, since) {
        match write_status(&context.client, &done.resource, status).await {
            Ok(_) => remembered.reported = Some(Instant::now()),
            Err(Refused::Outdated) => return Ok(Action::requeue(FAST)),
            Err(error) => return Err(Error::Report(error)),
        }
    }
    Ok(Action::requeue(match (refused, changing) {
        (true, true) => FAST.max(plan.requeue),
        (true, false) => SOON.max(plan.requeue),
        (false, _) => plan.requeue.min(SETTLED),
    }))
}

/// A resource that cannot be worked with: its status says why, and nothing else is touched.
async fn refuse(
    resource: &VectorizerCluster,
    context: &Context,
    why: &str,
) -> Result<Action, Error> {
    let old = resource.status.clone().unwrap_or_default();
    let generation = resource.meta().generation.unwrap_or(0);
    let next = status::invalid(&old, generation, why, Timestamp::now());
    if is_news(&old, &next, Some(Duration::ZERO)) {
        match write_status(&context.client, resource, next).await {
            Ok(_) | Err(Refused::Outdated) => {}
            Err(error) => return Err(Error::Report(error)),
        }
    }
    Ok(Action::await_change())
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
