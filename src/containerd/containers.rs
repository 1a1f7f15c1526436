//! Container records: what containerd knows of a container, running or not.

use std::collections::BTreeMap;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::{
    Container as Record, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    ListContainersRequest, UpdateContainerRequest,
};
use oci_spec::runtime::Spec;
use prost_types::{Any, FieldMask, Timestamp};
use time::{Duration, OffsetDateTime};

use super::{Namespace, committed};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::world::identity::Identity;
use crate::world::manifest::ImageIdentity;

/// The type of a spec in a container's record.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A container's record.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the image it was made from; empty for none.
    pub image: String,
    /// Its runtime's name.
    pub runtime: String,
    /// Its snapshotter; empty for none.
    pub snapshotter: String,
    /// The key of its writable snapshot; empty for none.
    pub snapshot_key: String,
    /// When the record was made; what is created gets its time from containerd.
    pub created: Option<OffsetDateTime>,
    /// Its OCI spec.
    pub spec: Spec,
}

/// A container among others.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its snapshotter; empty for none.
    pub snapshotter: String,
    /// The key of its writable snapshot; empty for none.
    pub snapshot_key: String,
}

impl Namespace<'_> {
    /// A container's record.
    pub fn container(&self, id: &str) -> Result<Container> {
        let record = self.record(id)?;
        let spec = record.spec.as_ref().map_or(&[][..], |any| &any.value);
        let spec = serde_json::from_slice(spec).map_err(|error| {
            let text = format!("the spec of container {id}");
            Error::caused_by(ErrorKind::InvalidInput, text, error)
        })?;
        Ok(Container {
            id: record.id,
            labels: record.labels.into_iter().collect(),
            image: record.image,
            runtime: record
                .runtime
                .map(|runtime| runtime.name)
                .unwrap_or_default(),
            snapshotter: record.snapshotter,
            snapshot_key: record.snapshot_key,
            created: record.created_at.as_ref().and_then(time_of),
            spec,
        })
    }

    fn record(&self, id: &str) -> Result<Record> {
        let mut client = ContainersClient::new(self.containerd.channel.clone());
        let get = self.request(GetContainerRequest { id: id.to_owned() });
        let answer = self.ask(
            format!("container {id}"),
            async move { client.get(get).await },
        )?;
        Ok(answer.container.unwrap_or_default())
    }

    /// Makes a record. Fails with [`ErrorKind::AlreadyExists`] when the id is taken.
    pub fn create_container(&self, container: &Container) -> Result<()> {
        let value = serde_json::to_vec(&container.spec)
            .map_err(|error| Error::caused_by(ErrorKind::Internal, "encode the spec", error))?;
        let record = Record {
            id: container.id.clone(),
            labels: container.labels.clone().into_iter().collect(),
            image: container.image.clone(),
            runtime: Some(Runtime {
                name: container.runtime.clone(),
                options: None,
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_owned(),
                value,
            }),
            snapshotter: container.snapshotter.clone(),
            snapshot_key: container.snapshot_key.clone(),
            ..Default::default()
        };
        let mut client = ContainersClient::new(self.containerd.channel.clone());
        let create = self.request(CreateContainerRequest {
            container: Some(record),
        });
        let what = format!("make container {}", container.id);
        self.ask(what, async move { client.create(create).await })?;
        Ok(())
    }

    /// Has a record refer to another writable snapshot, and changes its labels.
    pub fn give_snapshot(
        &self,
        id: &str,
        snapshot_key: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<()> {
        let mut client = ContainersClient::new(self.containerd.channel.clone());
        let update = self.request(UpdateContainerRequest {
            container: Some(Record {
                id: id.to_owned(),
                snapshot_key: snapshot_key.to_owned(),
                labels: labels.clone().into_iter().collect(),
                ..Default::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec!["snapshotkey".to_owned(), "labels".to_owned()],
            }),
        });
        let what = format!("change container {id}");
        self.ask(what, async move { client.update(update).await })
            .map(drop)
    }

    /// Removes a record; one that is not there is no error.
    pub fn delete_container(&self, id: &str) -> Result<()> {
        let mut client = ContainersClient::new(self.containerd.channel.clone());
        let delete = self.request(DeleteContainerRequest { id: id.to_owned() });
        let what = format!("remove container {id}");
        gone_is_fine(self.ask(what, async move { client.delete(delete).await }))
    }

    /// The ids and labels of the containers that match a filter in containerd's words.
    pub fn containers(&self, filter: &str) -> Result<Vec<Listed>> {
        let mut client = ContainersClient::new(self.containerd.channel.clone());
        let list = self.request(ListContainersRequest {
            filters: vec![filter.to_owned()],
        });
        let answer = self.ask(
            "list the containers",
            async move { client.list(list).await },
        )?;
        let listed = answer.containers.into_iter().map(|record| Listed {
            id: record.id,
            labels: record.labels.into_iter().collect(),
            snapshotter: record.snapshotter,
            snapshot_key: record.snapshot_key,
        });
        Ok(listed.collect())
    }

    /// Who a container is.
    pub fn identity(&self, id: &str) -> Result<Identity> {
        let record = self.record(id)?;
        let (chain_id, committed) = match record.snapshot_key.as_str() {
            "" => (None, None),
            key => self.below(&record.snapshotter, key)?,
        };
        let image = match record.image.as_str() {
            "" => None,
            name => Some(ImageIdentity {
                digest: self.image(name)?.map(|image| image.digest),
                name: name.to_owned(),
            }),
        };
        Ok(Identity {
            labels: record.labels.into_iter().collect(),
            image,
            snapshotter: Some(record.snapshotter).filter(|name| !name.is_empty()),
            chain_id,
            committed,
        })
    }

    /// The layers that a container's own stands on: the image's, and the files of a world
    /// between the two.
    fn below(&self, snapshotter: &str, key: &str) -> Result<(Option<String>, Option<Digest>)> {
        let parent = |key: &str| -> Result<Option<String>> {
            let Some(snapshot) = self.snapshot(snapshotter, key)? else {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("no snapshot {key}"),
                ));
            };
            Ok(Some(snapshot.parent).filter(|parent| !parent.is_empty()))
        };
        let Some(chain_id) = parent(key)? else {
            return Ok((None, None));
        };
        // Those of images are named by digests.
        if chain_id.starts_with("sha256:") {
            return Ok((Some(chain_id), None));
        }
        match self.snapshot(snapshotter, &chain_id)? {
            Some(below) => match committed::rootfs_in(&below) {
                Some(rootfs) => Ok((
                    Some(below.parent).filter(|parent| !parent.is_empty()),
                    Some(rootfs),
                )),
                None => Ok((Some(chain_id), None)),
            },
            None => Ok((Some(chain_id), None)),
        }
    }
}

fn time_of(timestamp: &Timestamp) -> Option<OffsetDateTime> {
    let seconds = OffsetDateTime::from_unix_timestamp(timestamp.seconds).ok()?;
    Some(seconds + Duration::nanoseconds(timestamp.nanos.into()))
}

/// What was to be removed and is not there.
pub(super) fn gone_is_fine<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
