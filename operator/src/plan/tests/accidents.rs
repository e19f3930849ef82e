//! Any order of accidents: an operator killed anywhere, nodes that die and come back, requests at any moment. Whatever
//! happened, when everybody is back the cluster comes to rest, writes, and has lost nothing to a switchover.

use proptest::prelude::*;

use super::model::Model;
use crate::crd::PromoteMode;

#[derive(Clone, Debug)]
enum Accident {
    /// A whole pass.
    Pass,
    /// A pass whose operator is killed before that step.
    Killed(usize),
    Kill(usize),
    Revive(usize),
    /// The operator cannot reach it any more, although it runs.
    Hide(usize),
    Stall(usize),
    /// It refuses to be promoted, whatever is asked.
    Refuse(usize),
    Heal(usize),
    Switchover(Option<usize>),
    Failover,
    Wait(u64),
    LoseLease,
}

const PODS: [&str; 3] = ["demo-master-0", "demo-replica-0", "demo-replica-1"];

fn accident() -> impl Strategy<Value = Accident> {
    let node = 0..PODS.len();
    prop_oneof![
        6 => Just(Accident::Pass),
        6 => (0usize..16).prop_map(Accident::Killed),
        2 => node.clone().prop_map(Accident::Kill),
        3 => node.clone().prop_map(Accident::Revive),
        1 => node.clone().prop_map(Accident::Hide),
        1 => node.clone().prop_map(Accident::Stall),
        1 => node.clone().prop_map(Accident::Refuse),
        1 => node.clone().prop_map(Accident::Heal),
        3 => proptest::option::of(node).prop_map(Accident::Switchover),
        1 => Just(Accident::Failover),
        2 => (1u64..20_000).prop_map(Accident::Wait),
        1 => Just(Accident::LoseLease),
    ]
}

fn happen(model: &mut Model, accident: &Accident, serial: usize) {
    match accident {
        Accident::Pass => drop(model.pass()),
        Accident::Killed(step) => drop(model.pass_until(*step)),
        Accident::Kill(node) => model.kill(PODS[*node]),
        Accident::Revive(node) => {
            if !model.node(PODS[*node]).alive {
                model.revive(PODS[*node]);
            }
        }
        Accident::Hide(node) => model.node(PODS[*node]).hidden = true,
        Accident::Stall(node) => model.node(PODS[*node]).stalled = true,
        Accident::Heal(node) => {
            model.node(PODS[*node]).stalled = false;
            model.node(PODS[*node]).hidden = false;
            model.node(PODS[*node]).refuses.clear();
        }
        Accident::Refuse(node) => model.node(PODS[*node]).refuses.push("promote"),
        Accident::Switchover(target) => {
            let target = target.map(|n| PODS[n]);
            model.ask(&format!("r{serial}"), PromoteMode::Switchover, target);
        }
        Accident::Failover => model.ask(&format!("r{serial}"), PromoteMode::Failover, None),
        Accident::Wait(ms) => model.pass_time(*ms),
        Accident::LoseLease => model.lease = None,
    }
    // Panics when two may write.
    model.master();
}

fn heal(model: &mut Model) {
    for pod in PODS {
        model.node(pod).stalled = false;
        model.node(pod).hidden = false;
        model.node(pod).refuses.clear();
        if !model.node(pod).alive {
            model.revive(pod);
        }
    }
    // A handover whose master had died waits for a person until it is back; a lease that was lost is written again.
    model.settle();
}

/// Few, so that every run has some; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_comes_to_rest_with_one_master(accidents in proptest::collection::vec(accident(), 1..40)) {
        let mut model = Model::healthy(3);
        for (serial, accident) in accidents.iter().enumerate() {
            happen(&mut model, accident, serial);
        }
        heal(&mut model);
        model.assert_sound();
    }

    #[test]
    fn without_a_failover_no_acknowledged_write_is_lost(accidents in proptest::collection::vec(accident(), 1..40)) {
        let mut model = Model::healthy(3);
        let calm = |a: &&Accident| !matches!(a, Accident::Failover | Accident::LoseLease);
        for (serial, accident) in accidents.iter().filter(calm).enumerate() {
            happen(&mut model, accident, serial);
        }
        let acknowledged = model.acknowledged;
        heal(&mut model);
        model.assert_sound();
        // Only the most advanced of those that are left can save what a master acknowledged alone and died with; nobody
        // asked for that here.
        let master = model.master().unwrap();
        let unplanned = model.status.last_promotion.as_ref().is_some_and(|l| l.mode == PromoteMode::Failover);
        prop_assert!(unplanned || model.node(&master).facts.end.offset >= acknowledged);
    }

    #[test]
    fn planning_a_converged_world_changes_nothing(replicas in 0u32..6, passes in 1usize..30) {
        let mut model = Model::new(replicas);
        model.settle();
        for _ in 0..passes {
            prop_assert!(model.pass().changes_nothing());
        }
        model.assert_sound();
    }
}
