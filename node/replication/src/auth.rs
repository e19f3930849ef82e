//! Proof of a shared token: HMAC-SHA256 over both nonces. The token itself is never sent.
//!
//! Each side contributes a nonce and proves the token over both, under a label of its own side, so that a proof can
//! be neither replayed in another session nor reflected. The replica proves itself first. Randomness is the driver's:
//! nonces are inputs here.
//!
//! It keeps out who does not know the token; it does not encrypt, and does not stop somebody who can rewrite the
//! stream: that takes TLS.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What one side contributes, fresh for each connection.
pub type Nonce = [u8; 32];
/// An HMAC-SHA256.
pub type Proof = [u8; 32];

/// The shared secret. Never printed.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// A token of these bytes; `None` when there are none, which would prove nothing.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (!bytes.is_empty()).then_some(Token(bytes))
    }

    /// This side's proof.
    pub fn prove(&self, side: Side, nonces: &Nonces) -> Proof {
        self.mac(side, nonces).finalize().into_bytes().into()
    }

    /// Whether `proof` is that of the other side, `side`. Takes the same time wherever it differs.
    pub fn verify(&self, side: Side, nonces: &Nonces, proof: &Proof) -> bool {
        self.mac(side, nonces).verify_slice(proof).is_ok()
    }

    fn mac(&self, side: Side, nonces: &Nonces) -> Hmac<Sha256> {
        // The trait allows a key of the wrong length to fail; HMAC takes any length.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        mac.update(match side {
            Side::Master => b"vectorizer replication 1 master ",
            Side::Replica => b"vectorizer replication 1 replica",
        });
        mac.update(&nonces.replica);
        mac.update(&nonces.master);
        mac
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The side that listens.
    Master,
    /// The side that connects.
    Replica,
}

/// Both nonces of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonces {
    /// The replica's.
    pub replica: Nonce,
    /// The master's.
    pub master: Nonce,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCES: Nonces = Nonces {
        replica: [1; 32],
        master: [2; 32],
    };

    #[test]
    fn a_proof_holds_for_its_token_side_and_nonces_only() {
        let token = Token::new("secret").unwrap();
        let proof = token.prove(Side::Replica, &NONCES);
        assert!(token.verify(Side::Replica, &NONCES, &proof));
        assert!(!token.verify(Side::Master, &NONCES, &proof), "reflected");
        let other = Nonces {
            master: [3; 32],
            ..NONCES
        };
        assert!(!token.verify(Side::Replica, &other, &proof), "replayed");
        let swapped = Nonces {
            replica: NONCES.master,
            master: NONCES.replica,
        };
        assert!(!token.verify(Side::Replica, &swapped, &proof));
        let wrong = Token::new("Secret").unwrap();
        assert!(!wrong.verify(Side::Replica, &NONCES, &proof));
    }

    #[test]
    fn a_token_is_neither_empty_nor_printed() {
        assert!(Token::new("").is_none());
        assert_eq!(format!("{:?}", Token::new("secret").unwrap()), "Token(..)");
    }
}
