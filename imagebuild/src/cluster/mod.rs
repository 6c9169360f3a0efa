// SPDX-License-Identifier: Apache-2.0
//! A cluster, seen with a user's kubeconfig or with the service account of a pod: one connection of the device's own
//! client, whose errors name their cause.

pub mod bootstrap_token;
mod exec;
pub mod kubeconfig;
pub mod table;

use anyhow::{Context, Result, anyhow};
use firstboot::kube::client::{Client, Reply};
use firstboot::kube::error::{Error, Kind};
use firstboot::kube::tls::{self, PinnedCa, Validity};
use firstboot::kube::{pin, tls::identified};
use firstboot::proxy::Via;
use firstboot::secret::Secret;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Where a pod finds its service account (Kubernetes, "Accessing the Kubernetes API from a Pod").
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How an API server is reached, and as whom.
pub struct Access {
    /// `https://HOST:PORT[/PATH]`.
    pub server: String,
    /// CA certificates that its server has to prove itself by, PEM.
    pub ca_pem: String,
    /// Proxy on the way, if there is one.
    pub via: Via,
    /// Who asks.
    pub credential: Credential,
}

/// By what a user is known to the API server.
pub enum Credential {
    /// A bearer token.
    Token(Secret<String>),
    /// A client certificate, PEM, and its key, PEM.
    Certificate(String, Secret<String>),
}

impl Access {
    /// That of the pod which this process runs in.
    ///
    /// # Errors
    /// When this is no pod, or one without a service account.
    pub fn in_cluster() -> Result<Access> {
        let variable = |name: &str| {
            std::env::var(name).ok().with_context(|| {
                format!("find the API server: {name} is not set; outside of a cluster give --kubeconfig FILE")
            })
        };
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let read = |name: &str| {
            let path = Path::new(SERVICE_ACCOUNT).join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Access {
            server: format!("https://{host}:{port}"),
            ca_pem: read("ca.crt")?,
            via: Via::default(),
            credential: Credential::Token(Secret::new(read("token")?.trim().to_owned())),
        })
    }
}

/// A client of one API server. Blocking; keeps its connection.
pub struct Api {
    client: Client,
    runtime: Runtime,
}

impl Api {
    /// A client with this access. Nothing is sent yet.
    ///
    /// # Errors
    /// A CA, certificate or key that cannot be used.
    pub fn new(access: &Access) -> Result<Api> {
        let host = firstboot::kube::client::host_of(&access.server);
        let roots = pin::certificates(&access.ca_pem)
            .with_context(|| format!("read the CA certificate of API server {host}: it is no PEM certificate"))?;
        let ca = PinnedCa::new(roots, Validity::SystemClock);
        let unusable = |what: &str| anyhow!("use the {what} for API server {host}: it cannot be read");
        let config = match &access.credential {
            Credential::Token(_) => tls::verified(ca).map_err(|_| unusable("CA certificate"))?,
            Credential::Certificate(chain, key) => {
                let chain = pin::certificates(chain).ok_or_else(|| unusable("client certificate"))?;
                let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes());
                let key = key.map_err(|_| unusable("client key"))?;
                identified(ca, chain, key).map_err(|_| unusable("client certificate and its key"))?
            }
        };
        let mut client = Client::through(&access.via, &access.server, config)?;
        if let Credential::Token(token) = &access.credential {
            client = client.with_bearer(token.expose());
        }
        let runtime = Builder::new_current_thread().enable_all().build().context("start network work")?;
        Ok(Api { client, runtime })
    }

    /// `host:port` for messages.
    pub fn host(&self) -> String {
        self.client.host()
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// GET of one object or list.
    ///
    /// # Errors
    /// The API server's, or why there is no answer.
    pub fn get(&self, path: &str) -> Result<Reply, Error> {
        self.run(self.client.get(path))
    }

    /// POST of a new object.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn post(&self, path: &str, object: &Value) -> Result<Reply, Error> {
        self.run(self.client.post(path, object))
    }

    /// PUT of a whole object.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn put(&self, path: &str, object: &Value) -> Result<Reply, Error> {
        self.run(self.client.put(path, object))
    }

    /// Strategic merge PATCH. An empty one changes nothing and gives the object as it is.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn patch(&self, path: &str, patch: &Value) -> Result<Reply, Error> {
        self.run(self.client.patch(path, patch))
    }

    /// DELETE of an object; whether it was there.
    ///
    /// # Errors
    /// As [`Api::get`], without 404.
    pub fn delete(&self, path: &str) -> Result<bool, Error> {
        match self.run(self.client.delete(path, &serde_json::json!({}))) {
            Ok(_) => Ok(true),
            Err(Error { kind: Kind::Status(404), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Watches a collection after `since` until `see` gives something, or `limit` has passed.
    ///
    /// # Errors
    /// As [`Api::get`]; status 410 when `since` is too old.
    pub fn watch<T>(
        &self,
        path: &str,
        field_selector: &str,
        since: &str,
        limit: Duration,
        see: impl FnMut(&str, &Value) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        self.run(self.client.watch(path, field_selector, Some(since), limit, see))
    }
}

/// Says of a refused request what the user of the kubeconfig lacks, and who permits it.
pub fn not_permitted(error: Error, verb: &str, resource: &str, place: &str, mend: &str) -> anyhow::Error {
    match error.kind {
        Kind::Status(403) => anyhow!(
            "{verb} {resource} {place}: the user of this kubeconfig may not (403, verb {verb}, resource {resource}); an \
             administrator of the cluster permits it: {mend}"
        ),
        Kind::Status(401) => anyhow!(
            "{verb} {resource} {place}: the API server does not know the credential of this kubeconfig (401): log in \
             again, or take another --context"
        ),
        _ => anyhow!("{verb} {resource} {place}: {error}"),
    }
}

/// What an object is worth as text.
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
