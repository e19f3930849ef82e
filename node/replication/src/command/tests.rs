use proptest::prelude::*;

use super::*;

const CLUSTER: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const NODE: Uuid = Uuid::from_u128(10);
const TARGET: Uuid = Uuid::from_u128(11);

fn empty() -> RoleFacts {
    RoleFacts {
        node_id: NODE,
        cluster: None,
        promised: 0,
        standing: Standing::Unassigned,
        writing: false,
        end: Position::ZERO,
        has_data: false,
        handed_over: None,
    }
}

fn master(epoch: u64, offset: u64) -> RoleFacts {
    RoleFacts {
        cluster: Some(CLUSTER),
        promised: epoch,
        standing: Standing::Master { epoch },
        writing: true,
        end: Position::new(epoch, offset),
        has_data: true,
        ..empty()
    }
}

fn restarted(facts: RoleFacts) -> RoleFacts {
    RoleFacts {
        writing: false,
        ..facts
    }
}

fn replica(epoch: u64, offset: u64) -> RoleFacts {
    RoleFacts {
        standing: following(epoch, "m:7001"),
        writing: false,
        ..master(epoch, offset)
    }
}

fn following(epoch: u64, address: &str) -> Standing {
    Standing::Replica {
        epoch,
        master_address: address.to_owned(),
        master_url: None,
    }
}

fn initialize(epoch: u64) -> Command {
    Command::Initialize {
        cluster: CLUSTER,
        epoch,
    }
}

fn fence(epoch: u64) -> Command {
    Command::Fence {
        cluster: CLUSTER,
        epoch,
    }
}

fn promote(epoch: u64, at: Position) -> Command {
    Command::Promote {
        cluster: CLUSTER,
        epoch,
        at,
    }
}

fn follow(epoch: u64, address: &str) -> Command {
    Command::Follow {
        cluster: CLUSTER,
        epoch,
        master_address: address.to_owned(),
        master_url: None,
    }
}

fn seen(epoch: u64) -> Command {
    Command::MasterSeen {
        cluster: CLUSTER,
        epoch,
    }
}

fn plan(from_epoch: u64, epoch: u64) -> HandedOver {
    HandedOver {
        from_epoch,
        epoch,
        target: TARGET,
    }
}

fn handover(from_epoch: u64, epoch: u64) -> Command {
    Command::Handover {
        cluster: CLUSTER,
        plan: plan(from_epoch, epoch),
    }
}

/// The facts after a transition was carried out in full.
fn carry_out(facts: &RoleFacts, next: Transition) -> RoleFacts {
    let mut after = RoleFacts {
        cluster: next.cluster,
        promised: next.promised,
        standing: next.standing,
        handed_over: next.handed_over,
        ..facts.clone()
    };
    match next.effect {
        Effect::None | Effect::HoldWrites | Effect::EndSession => {}
        Effect::StopWriting => after.writing = false,
        Effect::OpenEpoch(epoch) => {
            after.writing = true;
            after.end = Position::new(epoch, facts.end.offset + 1);
            after.has_data = true;
        }
    }
    after
}

fn done(facts: &RoleFacts, command: &Command) -> RoleFacts {
    let next = decide(facts, command).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    carry_out(facts, next)
}

#[test]
fn an_empty_node_is_initialized_once_and_the_same_command_again_is_answered_alike() {
    let facts = done(&empty(), &initialize(1));
    assert_eq!(facts, master(1, 1));
    let again = decide(&facts, &initialize(1)).unwrap();
    assert_eq!(again.effect, Effect::None);
    assert!(!again.persists(&facts));
}

#[test]
fn a_node_with_data_is_never_initialized() {
    let end = Position::new(3, 40);
    for facts in [replica(3, 40), restarted(master(3, 40))] {
        assert_eq!(
            decide(&facts, &initialize(4)),
            Err(Refusal::HasData { end })
        );
    }
    let interrupted_sync = RoleFacts {
        has_data: false,
        ..replica(3, 40)
    };
    assert!(decide(&interrupted_sync, &initialize(4)).is_err());
}

#[test]
fn a_crash_in_the_middle_of_initialize_does_not_open_the_same_epoch_again() {
    let facts = RoleFacts {
        end: Position::ZERO,
        has_data: false,
        ..restarted(master(1, 0))
    };
    assert!(matches!(
        decide(&facts, &initialize(1)),
        Err(Refusal::EpochSpent { .. })
    ));
    assert_eq!(
        done(&facts, &Command::Retake { epoch: 2 }).end,
        Position::new(2, 1)
    );
}

#[test]
fn every_command_of_another_cluster_is_refused() {
    let commands = [
        Command::Initialize {
            cluster: OTHER,
            epoch: 9,
        },
        Command::Fence {
            cluster: OTHER,
            epoch: 9,
        },
        Command::Handover {
            cluster: OTHER,
            plan: plan(3, 4),
        },
        Command::Promote {
            cluster: OTHER,
            epoch: 9,
            at: Position::new(3, 40),
        },
        Command::Follow {
            cluster: OTHER,
            epoch: 9,
            master_address: "m:7001".into(),
            master_url: None,
        },
        Command::MasterSeen {
            cluster: OTHER,
            epoch: 9,
        },
    ];
    let refused = Err(Refusal::WrongCluster {
        own: CLUSTER,
        found: OTHER,
    });
    for facts in [master(3, 40), replica(3, 40)] {
        for command in &commands {
            assert_eq!(decide(&facts, command), refused, "{command:?}");
        }
    }
}

#[test]
fn every_command_below_the_promised_epoch_is_refused() {
    let facts = RoleFacts {
        promised: 7,
        ..replica(3, 40)
    };
    let commands = [
        initialize(6),
        fence(6),
        promote(6, facts.end),
        follow(6, "x:7001"),
        seen(6),
    ];
    for command in commands {
        assert_eq!(
            decide(&facts, &command),
            Err(Refusal::StaleEpoch {
                epoch: 6,
                promised: 7
            }),
            "{command:?}"
        );
    }
}

#[test]
fn a_fence_stops_a_master_of_a_lower_epoch_for_good() {
    let next = decide(&master(3, 40), &fence(4)).unwrap();
    assert_eq!(next.effect, Effect::StopWriting);
    let facts = restarted(carry_out(&master(3, 40), next));
    assert_eq!(facts.standing, Standing::Unassigned);
    assert!(
        decide(&facts, &Command::Retake { epoch: 5 }).is_err(),
        "a fenced master does not make itself master again after a restart"
    );
    assert_eq!(
        done(&facts, &promote(4, facts.end)).end,
        Position::new(4, 41)
    );
}

#[test]
fn a_fence_at_its_own_epoch_disturbs_neither_master_nor_replica() {
    for facts in [master(3, 40), replica(3, 40)] {
        let next = decide(&facts, &fence(3)).unwrap();
        assert_eq!(next.effect, Effect::None);
        assert!(!next.persists(&facts));
    }
}

#[test]
fn a_fence_ends_the_session_of_a_replica_with_a_lower_master() {
    let next = decide(&replica(3, 40), &fence(4)).unwrap();
    assert_eq!(next.effect, Effect::EndSession);
    let facts = carry_out(&replica(3, 40), next);
    assert!(matches!(
        decide(&facts, &seen(3)),
        Err(Refusal::StaleEpoch { .. })
    ));
    assert_eq!(done(&facts, &seen(4)).standing, following(4, "m:7001"));
}

#[test]
fn a_handover_ends_the_epoch_only_at_its_finish_and_answers_the_same_again() {
    let facts = master(3, 40);
    let begun = decide(&facts, &handover(3, 4)).unwrap();
    assert_eq!(begun.effect, Effect::HoldWrites);
    assert!(
        !begun.persists(&facts),
        "until the finish everything can resume"
    );
    let facts = done(&facts, &Command::FinishHandover { plan: plan(3, 4) });
    assert_eq!((facts.promised, facts.writing), (4, false));
    let again = decide(&facts, &handover(3, 4)).unwrap();
    assert_eq!(again.effect, Effect::None);
    let to_another = Command::Handover {
        cluster: CLUSTER,
        plan: HandedOver {
            target: OTHER,
            ..plan(3, 4)
        },
    };
    assert!(decide(&facts, &to_another).is_err());
}

#[test]
fn a_handover_is_refused_in_any_other_epoch_role_or_direction() {
    assert!(decide(&master(4, 40), &handover(3, 4)).is_err());
    assert!(decide(&replica(3, 40), &handover(3, 4)).is_err());
    assert!(decide(&restarted(master(3, 40)), &handover(3, 4)).is_err());
    assert!(matches!(
        decide(&master(3, 40), &handover(3, 3)),
        Err(Refusal::NotAbove { .. })
    ));
    let to_self = Command::Handover {
        cluster: CLUSTER,
        plan: HandedOver {
            target: NODE,
            ..plan(3, 4)
        },
    };
    assert_eq!(decide(&master(3, 40), &to_self), Err(Refusal::TargetIsSelf));
}

#[test]
fn a_fence_in_the_middle_of_a_handover_wins() {
    let facts = done(&master(3, 40), &fence(5));
    assert!(decide(&facts, &Command::FinishHandover { plan: plan(3, 4) }).is_err());
}

#[test]
fn promotion_happens_exactly_at_the_position_and_once() {
    let facts = replica(3, 40);
    let at = Position::new(3, 40);
    for wrong in [
        Position::new(3, 39),
        Position::new(3, 41),
        Position::new(2, 40),
    ] {
        assert_eq!(
            decide(&facts, &promote(4, wrong)),
            Err(Refusal::WrongPosition { end: at, at: wrong })
        );
    }
    let next = decide(&facts, &promote(4, at)).unwrap();
    assert_eq!(next.effect, Effect::OpenEpoch(4));
    let facts = carry_out(&facts, next);
    let again = decide(&facts, &promote(4, at)).unwrap();
    assert_eq!(again.effect, Effect::None);
    assert!(!again.persists(&facts));
}

#[test]
fn nobody_is_promoted_without_data_or_into_an_epoch_that_somebody_else_opened() {
    let without = RoleFacts {
        has_data: false,
        ..replica(3, 40)
    };
    assert_eq!(
        decide(&without, &promote(4, without.end)),
        Err(Refusal::NoData)
    );
    let at = Position::new(3, 40);
    assert!(matches!(
        decide(&replica(3, 40), &promote(3, at)),
        Err(Refusal::EpochSpent { .. })
    ));
    let fenced = RoleFacts {
        standing: Standing::Unassigned,
        ..replica(3, 40)
    };
    assert!(matches!(
        decide(&fenced, &promote(3, at)),
        Err(Refusal::EpochSpent { .. })
    ));
    let crashed = restarted(RoleFacts {
        end: Position::new(2, 40),
        ..master(3, 40)
    });
    assert!(
        matches!(
            decide(&crashed, &promote(3, crashed.end)),
            Err(Refusal::EpochSpent { .. })
        ),
        "its former process may have sent operations of epoch 3"
    );
}

#[test]
fn a_writing_master_is_not_promoted_on_top_but_one_that_restarted_is() {
    let at = Position::new(3, 40);
    assert_eq!(
        decide(&master(3, 40), &promote(4, at)),
        Err(Refusal::StillMaster { epoch: 3 })
    );
    assert!(decide(&restarted(master(3, 40)), &promote(4, at)).is_ok());
}

#[test]
fn follow_demotes_a_master_of_a_lower_epoch_and_not_of_the_same() {
    let next = decide(&master(3, 40), &follow(4, "new:7001")).unwrap();
    assert_eq!(next.effect, Effect::StopWriting);
    assert_eq!(next.standing, following(4, "new:7001"));
    assert_eq!(
        decide(&master(3, 40), &follow(3, "new:7001")),
        Err(Refusal::OwnEpoch { epoch: 3 })
    );
}

#[test]
fn follow_again_changes_nothing_and_with_a_new_address_only_the_session() {
    let facts = replica(3, 40);
    let same = decide(&facts, &follow(3, "m:7001")).unwrap();
    assert_eq!((same.effect, same.persists(&facts)), (Effect::None, false));
    let moved = decide(&facts, &follow(3, "moved:7001")).unwrap();
    assert_eq!(moved.effect, Effect::EndSession);
    assert_eq!(moved.standing, following(3, "moved:7001"));
}

#[test]
fn an_empty_node_takes_the_cluster_of_whom_it_follows() {
    let facts = done(&empty(), &follow(3, "m:7001"));
    assert_eq!((facts.cluster, facts.promised), (Some(CLUSTER), 3));
    let by_configuration = done(
        &empty(),
        &Command::ConfiguredReplica {
            master_address: "m:7001".into(),
            master_url: None,
        },
    );
    assert_eq!(by_configuration.cluster, None);
    let met = done(&by_configuration, &seen(1));
    assert_eq!((met.cluster, met.promised), (Some(CLUSTER), 1));
}

#[test]
fn a_restarted_master_takes_a_higher_epoch_or_none() {
    let facts = restarted(master(3, 40));
    assert!(decide(&facts, &Command::Retake { epoch: 3 }).is_err());
    assert_eq!(
        done(&facts, &Command::Retake { epoch: 4 }).end,
        Position::new(4, 41)
    );
    assert!(decide(&master(3, 40), &Command::Retake { epoch: 4 }).is_err());
    assert!(decide(&replica(3, 40), &Command::Retake { epoch: 4 }).is_err());
}

#[test]
fn a_static_master_takes_the_next_epoch_at_each_start() {
    let facts = done(&restarted(master(3, 40)), &Command::ConfiguredMaster);
    assert_eq!(facts.standing, Standing::Master { epoch: 4 });
    let former_replica = RoleFacts {
        promised: 9,
        ..replica(3, 40)
    };
    assert_eq!(
        done(&former_replica, &Command::ConfiguredMaster).standing,
        Standing::Master { epoch: 10 }
    );
    assert_eq!(
        decide(&empty(), &Command::ConfiguredMaster),
        Err(Refusal::NoCluster)
    );
}

#[test]
fn a_higher_epoch_on_the_link_demotes_a_master_and_a_lower_one_does_not() {
    let facts = done(&master(3, 40), &Command::Deposed { epoch: 4 });
    assert_eq!(
        (facts.promised, facts.writing, &facts.standing),
        (4, false, &Standing::Unassigned)
    );
    let facts = done(&master(3, 40), &Command::Deposed { epoch: 3 });
    assert_eq!(facts, master(3, 40));
}

#[test]
fn no_master_is_believed_whose_epoch_no_cluster_gets_to() {
    let facts = replica(3, 40);
    for epoch in [u64::MAX, 4 + (1 << 20)] {
        let promised = 3;
        let refused = Err(Refusal::TooFar { epoch, promised });
        assert_eq!(decide(&facts, &seen(epoch)), refused);
    }
    // A thousand restarts while it was away are none of its business.
    assert_eq!(done(&facts, &seen(1_003)).promised, 1_003);
}

fn any_command() -> impl Strategy<Value = Command> {
    let epoch = 0..6_u64;
    let at = (0..6_u64, 0..4_u64).prop_map(|(e, o)| Position::new(e, o));
    prop_oneof![
        epoch.clone().prop_map(initialize),
        epoch.clone().prop_map(fence),
        (0..6_u64, 0..6_u64).prop_map(|(a, b)| handover(a, b)),
        (0..6_u64, 0..6_u64).prop_map(|(a, b)| Command::FinishHandover { plan: plan(a, b) }),
        (epoch.clone(), at).prop_map(|(e, at)| promote(e, at)),
        (epoch.clone(), prop_oneof!["a:1", "b:1"]).prop_map(|(e, a)| follow(e, &a)),
        epoch.clone().prop_map(|epoch| Command::Retake { epoch }),
        Just(Command::ConfiguredMaster),
        epoch.clone().prop_map(seen),
        epoch.prop_map(|epoch| Command::Deposed { epoch }),
    ]
}

proptest! {
    #[test]
    fn promises_never_sink_epochs_open_once_and_a_repeated_command_does_nothing_new(
        commands in prop::collection::vec((any_command(), any::<bool>()), 0..40)
    ) {
        let mut facts = empty();
        let mut opened = std::collections::BTreeSet::new();
        for (command, restart) in commands {
            if restart {
                facts.writing = false;
            }
            let Ok(next) = decide(&facts, &command) else { continue };
            prop_assert!(next.promised >= facts.promised);
            if let Effect::OpenEpoch(epoch) = next.effect {
                prop_assert!(opened.insert(epoch), "epoch {} opened twice", epoch);
                prop_assert!(epoch >= facts.promised && epoch > facts.end.epoch);
            }
            facts = carry_out(&facts, next);
            // What a command has brought about, the same command does not bring about again.
            if let Ok(again) = decide(&facts, &command) {
                prop_assert!(!matches!(again.effect, Effect::OpenEpoch(_)));
                prop_assert!(!again.persists(&facts), "{:?} twice", command);
            }
            if facts.writing {
                let is_master = matches!(facts.standing, Standing::Master { epoch } if epoch == facts.promised);
                prop_assert!(is_master, "writes only in the epoch promised: {:?}", facts);
            }
        }
    }
}

#[test]
fn a_configured_master_that_promised_the_last_epoch_there_is_is_refused() {
    let mut facts = restarted(master(3, 9));
    facts.promised = u64::MAX;
    facts.standing = Standing::Unassigned;
    let refused = decide(&facts, &Command::ConfiguredMaster);
    assert_eq!(refused, Err(Refusal::NoEpochLeft));
    assert!(Refusal::NoEpochLeft.to_string().contains("new cluster"));
    facts.promised -= 1;
    let opened = decide(&facts, &Command::ConfiguredMaster).unwrap();
    assert_eq!(opened.effect, Effect::OpenEpoch(u64::MAX));
}
