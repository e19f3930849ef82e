//! A line between master and replica that counts what it carries and can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::error::{Context, Outcome};

#[derive(Default)]
struct Shared {
    to_replica: AtomicU64,
    cut: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

/// The line. What it carries ends with the processes at its ends.
pub struct Relay {
    /// Where the replica connects to.
    pub address: String,
    shared: Arc<Shared>,
}

impl Relay {
    /// A line to `master`.
    pub fn to(master: String) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("opening a relay")?;
        let address = listener
            .local_addr()
            .context("opening a relay")?
            .to_string();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        thread::spawn(move || {
            for replica in listener.incoming().flatten() {
                // Whoever comes while it is cut is turned away.
                if !own.cut.load(Ordering::SeqCst)
                    && let Ok(master) = TcpStream::connect(&master)
                {
                    carry(&own, replica, master);
                }
            }
        });
        Ok(Relay { address, shared })
    }

    /// Bytes carried so far from the master to the replica.
    pub fn carried(&self) -> u64 {
        self.shared.to_replica.load(Ordering::SeqCst)
    }

    /// Closes what there is and turns away whoever comes.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        let mut sockets = self
            .shared
            .sockets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.drain(..) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Carries again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

fn carry(shared: &Arc<Shared>, replica: TcpStream, master: TcpStream) {
    let mut sockets = shared
        .sockets
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for (from, to, counted) in [(&master, &replica, true), (&replica, &master, false)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let shared = shared.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
                if counted {
                    shared.to_replica.fetch_add(count as u64, Ordering::SeqCst);
                }
            }
            // The other side learns of it.
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    sockets.extend([master, replica]);
}
