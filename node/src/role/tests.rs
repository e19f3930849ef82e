use vectorizer_replication::position::{Chain, EpochStart};

use super::*;

fn sample() -> RoleState {
    let mut state = RoleState::new();
    state.cluster = Some(Uuid::from_u128(7));
    state.promised = 4;
    state.standing = Standing::Replica {
        epoch: 4,
        master_address: "10.0.0.1:7001".to_owned(),
        master_url: Some("http://10.0.0.1:15002".to_owned()),
    };
    assert!(state.history.open(EpochStart {
        epoch: 4,
        first_offset: 1,
        chain: Chain(0)
    }));
    state
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("role");
    assert!(RoleFile::load(&path).unwrap().is_none());
    let mut file = RoleFile::create(&path, sample()).unwrap();
    for standing in [Standing::Unassigned, Standing::Master { epoch: 9 }] {
        file.update(|state| {
            state.promised = 9;
            state.standing = standing.clone();
        })
        .unwrap();
        let again = RoleFile::load(&path).unwrap().unwrap();
        assert_eq!(again.state(), file.state());
        assert_eq!(again.state().standing, standing);
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("role");
    RoleFile::create(&path, sample()).unwrap();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        assert!(decode(&good[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(decode(&bad).is_err(), "bit {bit} of byte {at}");
        }
    }
    fs::write(&path, &good[..20]).unwrap();
    let refused = RoleFile::load(&path).unwrap_err().to_string();
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    assert!(refused.contains("empty data directory"), "{refused}");
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("role");
    let file = RoleFile::create(&path, sample()).unwrap();
    for torn in [&b""[..], b"VECROLE\0half"] {
        fs::write(path.with_extension("new"), torn).unwrap();
        let again = RoleFile::load(&path).unwrap().unwrap();
        assert_eq!(again.state(), file.state());
    }
}

#[test]
fn a_failed_write_leaves_the_state_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone").join("role");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let mut file = RoleFile::create(&path, sample()).unwrap();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert!(file.update(|state| state.promised = 99).is_err());
    assert_eq!(file.state().promised, 4);
}
