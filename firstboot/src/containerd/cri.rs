// SPDX-License-Identifier: Apache-2.0
//! The few questions that firstboot asks the container runtime over CRI (k8s.io/cri-api runtime/v1).
//!
//! The messages are written out by hand, only the fields that are read: the field numbers are those of `api.proto`.

use crate::host::System;
use anyhow::{Context, Result, bail};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// The runtime's socket, as kubelet names it.
pub const SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// How long one answer may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

#[derive(Clone, PartialEq, prost::Message)]
struct VersionRequest {
    #[prost(string, tag = "1")]
    version: String,
}

/// Who answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Version {
    /// `containerd`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// For example `v2.4.2`.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeConfigRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeConfigResponse {
    #[prost(message, optional, tag = "1")]
    linux: Option<LinuxRuntimeConfiguration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxRuntimeConfiguration {
    /// enum CgroupDriver: 0 systemd, 1 cgroupfs
    #[prost(int32, tag = "1")]
    cgroup_driver: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// Of StopPodSandbox and of RemovePodSandbox.
#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

/// Of both, and it says nothing.
#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxResponse {}

/// A connection to the runtime.
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to the runtime of this machine.
    pub fn connect(sys: &dyn System) -> Result<Self> {
        let socket = &format!("unix://{}", sys.socket(SOCKET.trim_start_matches("unix://")));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the network runtime")?;
        let endpoint = Endpoint::from_shared(socket.to_owned()).with_context(|| format!("read address {socket}"))?;
        let endpoint = endpoint.timeout(TIMEOUT);
        let channel = runtime.block_on(endpoint.connect()).with_context(|| format!("connect to {socket}"))?;
        Ok(Cri { runtime, channel })
    }

    fn call<Q, A>(&self, method: &'static str, question: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let answer = self.ask(method, question)?;
        answer.map_err(|s| anyhow::anyhow!("call {method}: {}: {}", s.code(), s.message()))
    }

    /// Like [`Self::call`], telling a refusal from a failure to ask.
    fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<Result<A, tonic::Status>>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.runtime.block_on(async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await.with_context(|| format!("reach the runtime for {method}"))?;
            let codec = ProstCodec::<Q, A>::default();
            let path = PathAndQuery::from_static(method);
            Ok(grpc.unary(tonic::Request::new(question), path, codec).await.map(tonic::Response::into_inner))
        })
    }

    /// The cgroup driver that the runtime uses, `systemd` or `cgroupfs`; `None` when it is too old to say.
    pub fn cgroup_driver(&self) -> Result<Option<&'static str>> {
        let method = "/runtime.v1.RuntimeService/RuntimeConfig";
        match self.ask::<_, RuntimeConfigResponse>(method, RuntimeConfigRequest {})? {
            Ok(answer) => Ok(Some(match answer.linux.unwrap_or_default().cgroup_driver {
                0 => "systemd",
                _ => "cgroupfs",
            })),
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => bail!("call {method}: {}: {}", status.code(), status.message()),
        }
    }

    /// Name and version of the runtime.
    pub fn version(&self) -> Result<Version> {
        self.call("/runtime.v1.RuntimeService/Version", VersionRequest { version: "v1".into() })
    }

    /// Fails unless the runtime says that it is ready. The network may not be: that comes later.
    pub fn ready(&self) -> Result<()> {
        let answer: StatusResponse =
            self.call("/runtime.v1.RuntimeService/Status", StatusRequest { verbose: false })?;
        let conditions = answer.status.unwrap_or_default().conditions;
        match conditions.iter().find(|c| c.r#type == "RuntimeReady") {
            Some(condition) if condition.status => Ok(()),
            Some(condition) => bail!("wait for the container runtime: {}", condition.message),
            None => bail!("wait for the container runtime: it does not report RuntimeReady"),
        }
    }

    /// Id of an image, if it is there.
    pub fn image(&self, name: &str) -> Result<Option<String>> {
        let question = ImageStatusRequest { image: Some(ImageSpec { image: name.to_owned() }) };
        let answer: ImageStatusResponse = self.call("/runtime.v1.ImageService/ImageStatus", question)?;
        Ok(answer.image.map(|i| i.id))
    }

    /// Ids of all pods, running or not.
    pub fn pods(&self) -> Result<Vec<String>> {
        let answer: ListPodSandboxResponse =
            self.call("/runtime.v1.RuntimeService/ListPodSandbox", ListPodSandboxRequest {})?;
        Ok(answer.items.into_iter().map(|pod| pod.id).collect())
    }

    /// Ends every container of a pod, and removes it with its network.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        let pod = || PodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let _: PodSandboxResponse = self.call("/runtime.v1.RuntimeService/StopPodSandbox", pod())?;
        let _: PodSandboxResponse = self.call("/runtime.v1.RuntimeService/RemovePodSandbox", pod())?;
        Ok(())
    }
}
