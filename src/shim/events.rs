//! Events for containerd, in the order in which they are published.
//!
//! The crate's own publisher gives an event up after 15 s, lets later ones
//! overtake it, and does not always notice that containerd was restarted. Here
//! an event waits for as long as containerd is away, and the others behind it.

use std::time::{Duration, SystemTime};

use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::MessageDyn;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_async::{Client, EventsClient};
use containerd_shim::protos::ttrpc;
use tokio::sync::{mpsc, watch};

/// How long containerd may take to accept an event.
const ACCEPT: Duration = Duration::from_secs(10);
/// The longest pause between two tries to reach containerd.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A message that is an event.
pub trait Message: Event + MessageDyn {}
impl<T: Event + MessageDyn> Message for T {}

/// A queue to containerd. Putting an event in never waits; one task sends them
/// one after the other.
#[derive(Clone)]
pub struct Events {
    namespace: String,
    queue: mpsc::UnboundedSender<Envelope>,
    waiting: watch::Sender<usize>,
}

impl Events {
    /// Starts the sending task. `address` is containerd's ttrpc socket.
    pub fn new(address: &str, namespace: String) -> Self {
        let address = match address.contains("://") {
            true => address.to_owned(),
            false => format!("unix://{address}"),
        };
        let (queue, pending) = mpsc::unbounded_channel();
        let waiting = watch::Sender::new(0);
        tokio::spawn(send_all(address, pending, waiting.clone()));
        Events {
            namespace,
            queue,
            waiting,
        }
    }

    /// Queues an event.
    pub fn publish(&self, event: impl Message) {
        let topic = event.topic();
        let event: &dyn MessageDyn = &event;
        let value = match event.write_to_bytes_dyn() {
            Ok(value) => value,
            Err(error) => {
                log::error!("encode the event {topic}: {error}");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic,
            event: Some(Any {
                type_url: event.descriptor_dyn().full_name().to_owned(),
                value,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
        self.waiting.send_modify(|waiting| *waiting += 1);
        // Fails only when the runtime shuts down.
        let _ = self.queue.send(envelope);
    }

    /// Waits until containerd has all events, for `patience` at most.
    pub async fn sent(&self, patience: Duration) {
        let mut waiting = self.waiting.subscribe();
        let none = waiting.wait_for(|waiting| *waiting == 0);
        if tokio::time::timeout(patience, none).await.is_err() {
            log::warn!(
                "{} event(s) are lost: containerd is away",
                *self.waiting.borrow()
            );
        }
    }
}

async fn send_all(
    address: String,
    mut pending: mpsc::UnboundedReceiver<Envelope>,
    waiting: watch::Sender<usize>,
) {
    let mut containerd = None;
    while let Some(envelope) = pending.recv().await {
        let request = ForwardRequest {
            envelope: Some(envelope).into(),
            ..Default::default()
        };
        let mut pause = Duration::from_millis(50);
        while !send(&address, &mut containerd, &request).await {
            containerd = None;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        waiting.send_modify(|waiting| *waiting -= 1);
    }
}

/// False when containerd could not be reached: the connection is of no more use.
async fn send(
    address: &str,
    containerd: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> bool {
    if containerd.is_none() {
        *containerd = Client::connect(address).await.ok().map(EventsClient::new);
    }
    let Some(client) = containerd else {
        return false;
    };
    match client
        .forward(ttrpc::context::with_duration(ACCEPT), request)
        .await
    {
        Ok(_) => true,
        // It was heard and refused: again would be no better.
        Err(ttrpc::Error::RpcStatus(status)) if status.code() != ttrpc::Code::DEADLINE_EXCEEDED => {
            log::warn!(
                "containerd refuses the event {}: {}",
                request.envelope.topic,
                status.message
            );
            true
        }
        Err(error) => {
            log::debug!("the event {} has to wait: {error}", request.envelope.topic);
            false
        }
    }
}

/// A time as protobuf has it.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
        ..Default::default()
    }
}
