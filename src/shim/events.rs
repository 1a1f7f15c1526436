//! Events for containerd, in the order in which they are published.

use std::time::SystemTime;

use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::MessageDyn;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::ttrpc::context::Context;
use containerd_shim::publisher::RemotePublisher;
use tokio::sync::mpsc;

/// A message that is an event.
pub trait Message: Event + MessageDyn {}
impl<T: Event + MessageDyn> Message for T {}

/// A queue to containerd. Putting an event in never waits; one task sends them
/// one after the other, again if containerd is away for a moment.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::UnboundedSender<(String, Box<dyn MessageDyn>)>,
}

impl Events {
    /// Starts the sending task.
    pub fn new(publisher: RemotePublisher, namespace: String) -> Self {
        let (queue, mut pending) = mpsc::unbounded_channel::<(String, Box<dyn MessageDyn>)>();
        tokio::spawn(async move {
            while let Some((topic, event)) = pending.recv().await {
                let sent = publisher
                    .publish(Context::default(), &topic, &namespace, event)
                    .await;
                if let Err(error) = sent {
                    log::warn!("event {topic} is lost: {error}");
                }
            }
        });
        Events { queue }
    }

    /// Queues an event.
    pub fn publish(&self, event: impl Message) {
        let topic = event.topic();
        // Fails only when the runtime shuts down.
        let _ = self.queue.send((topic, Box::new(event)));
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
