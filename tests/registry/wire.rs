//! A network that fails: what lies between a client and a server, and breaks or
//! stands still after so many bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What happens to connections. Bytes are those of both directions.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Each breaks after so many bytes.
    CutAfter(u64),
    /// The first that carries so many bytes breaks.
    CutOnceAfter(u64),
    /// The second request of this method, of all connections, breaks before it arrives.
    CutSecond(&'static str),
    /// Nothing goes on after so many bytes, of all connections together.
    StallAfter(u64),
}

/// Listens at `address` as long as the test's process lives.
pub struct Wire {
    pub address: String,
}

impl Wire {
    pub fn to(server: &str, fault: Fault) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = server.to_owned();
        let rule = Arc::new(Rule {
            fault,
            all: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // The server may be gone before the last client.
                let Ok(server) = TcpStream::connect(&server) else {
                    continue;
                };
                let count = Arc::default();
                carry(&client, &server, &rule, &count);
                carry(&server, &client, &rule, &count);
            }
        });
        Wire { address }
    }

    pub fn at(&self, below: &str) -> String {
        format!("{}/{below}", self.address)
    }
}

/// A fault, and what there was of it.
struct Rule {
    fault: Fault,
    /// Bytes, or requests, of all connections.
    all: AtomicU64,
    cuts: AtomicU64,
}

impl Rule {
    /// Whether a connection breaks, that has carried `count` bytes with the last, `bytes`.
    fn cuts(&self, bytes: &[u8], count: u64) -> bool {
        match self.fault {
            Fault::CutAfter(most) => count > most,
            Fault::CutOnceAfter(most) => {
                count > most && self.cuts.fetch_add(1, Ordering::Relaxed) == 0
            }
            Fault::CutSecond(method) => {
                bytes.starts_with(method.as_bytes())
                    && self.all.fetch_add(1, Ordering::Relaxed) == 1
            }
            Fault::StallAfter(most) => {
                let all = self.all.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if all > most {
                    loop {
                        thread::park();
                    }
                }
                false
            }
        }
    }
}

/// Carries what `from` sends to `to`, in a thread.
fn carry(from: &TcpStream, to: &TcpStream, rule: &Arc<Rule>, count: &Arc<AtomicU64>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a clone");
    let (mut from, mut to) = (clone(from), clone(to));
    let (rule, count) = (Arc::clone(rule), Arc::clone(count));
    thread::spawn(move || {
        let mut buffer = [0; 32 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let count = count.fetch_add(length as u64, Ordering::Relaxed);
            if rule.cuts(&buffer[..length], count) || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
