// SPDX-License-Identifier: Apache-2.0
//! What failed: its code, its owner and its text.

use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// Who must act: docs/operations.md, "Who must act". Serde writes [`Owner::word`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Edit the seed file. firstboot stops and waits for a changed seed.
    Seed,
    /// Reflash or rebuild the image. firstboot stops.
    Image,
    /// Look at this device. firstboot tries again after a while, or at the next boot.
    Host,
    /// Fix the cluster or the network (or change the seed). firstboot keeps trying.
    Cluster,
}

impl Owner {
    /// One word, as it stands in the status file.
    pub fn word(self) -> &'static str {
        match self {
            Owner::Seed => "seed",
            Owner::Image => "image",
            Owner::Host => "host",
            Owner::Cluster => "cluster",
        }
    }

    /// What the person in front of the device should do, one line.
    pub fn advice(self) -> &'static str {
        match self {
            Owner::Seed => "edit seed.toml on the boot partition",
            Owner::Image => "rebuild the image, or flash another one",
            Owner::Host => "look at this device; it tries again by itself, or at the next boot",
            Owner::Cluster => "fix the cluster or the network, or change seed.toml; it keeps trying",
        }
    }

    /// Exit code of the process when this fault ends it.
    pub fn exit_code(self) -> u8 {
        match self {
            Owner::Seed => 10,
            Owner::Image => 11,
            Owner::Host => 12,
            Owner::Cluster => 13,
        }
    }

    /// The code of a fault of this owner that has no code of its own.
    pub fn general(self) -> Code {
        match self {
            Owner::Seed => Code::Seed,
            Owner::Image => Code::Image,
            Owner::Host => Code::Host,
            Owner::Cluster => Code::Cluster,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Makes the enum, the list of its variants and their text from one table, so that none of them can be forgotten.
macro_rules! codes {
    ($($owner:ident { $($(#[doc = $meaning:literal])+ $name:ident = $text:literal,)+ })+) => {
        /// The kind of a fault, for scripts and for searching. Its text never changes: a code is never given another
        /// number, and the number of a code that has gone is never used again. The first digit is the owner's:
        /// FB1xx seed, FB2xx image, FB3xx host, FB4xx cluster. docs/operations.md says what to do about each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($($(#[doc = $meaning])+ $name,)+)+
        }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Code] = &[$($(Code::$name,)+)+];

            /// `FB101`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($(Code::$name => $text,)+)+
                }
            }

            /// Who must act.
            pub fn owner(self) -> Owner {
                match self {
                    $($(Code::$name)|+ => Owner::$owner,)+
                }
            }

            /// Owner and code, as they stand in brackets on the console: `cluster, FB407`.
            pub fn tag(self) -> String {
                format!("{}, {self}", self.owner())
            }
        }
    };
}

codes! {
    Seed {
        /// The seed cannot be read from its medium, for the reason in the text.
        Seed = "FB100",
        /// There is no seed that this device could take.
        NoSeed = "FB101",
        /// The seed file is not text, is empty or is too large.
        SeedNotText = "FB102",
        /// The seed is not valid TOML.
        SeedSyntax = "FB103",
        /// The seed has no version, or one that this firstboot does not read.
        SeedVersion = "FB104",
        /// The seed has a table, key or field that does not exist.
        UnknownKey = "FB105",
        /// The seed lacks a table, key or value that it needs.
        MissingKey = "FB106",
        /// A value in the seed is of the wrong type or form.
        BadValue = "FB107",
        /// Two settings of the seed contradict each other, or one has no effect without another.
        ConflictingKeys = "FB108",
        /// The seed sets something that firstboot, kubelet or Kubernetes does not let a seed set.
        SettingNotAllowed = "FB109",
        /// This device has used this seed's token and erased it.
        TokenUsedUp = "FB110",
        /// A seed was found on a device that has joined and whose certificate is good.
        SeedNotTaken = "FB111",
        /// The certificate of this node is gone or has expired, so the device needs a new seed.
        NewSeedNeeded = "FB112",
        /// The seed asks for something that this device does not have or does not accept.
        SettingDoesNotFit = "FB113",
        /// kubelet does not start with the seed's `[kubelet.config]`, or with its labels and taints.
        KubeletConfigRejected = "FB114",
        /// A stick was found on a device that has joined, without the signature of the device's owner.
        StickNotSigned = "FB115",
        /// The seed is for another cluster than the one of which this device holds a node's data.
        OtherCluster = "FB116",
        /// The seeds on the medium are for other devices.
        SeedForAnother = "FB117",
        /// kubeadm does not accept what the seed's `[cluster.kubeadm]` says.
        KubeadmRejected = "FB118",
    }
    Image {
        /// Something in the image is wrong that has no code of its own.
        Image = "FB200",
        /// The description of the image is missing or cannot be read.
        NoImageInfo = "FB201",
        /// A part of the bundle is missing or cannot be read.
        BundleIncomplete = "FB202",
        /// A part of the bundle is not what was built: its size differs, or the kernel refuses a changed block of it.
        BundleDamaged = "FB203",
        /// The bundle has a container image under another name than the runtime needs.
        BundleImageName = "FB204",
        /// The image's kubelet is too old for the API server.
        KubeletVersion = "FB205",
        /// The image's disk has no boot partition.
        NoBootPartition = "FB206",
        /// The image lacks wpa_supplicant, which Wi-Fi needs.
        NoWpaSupplicant = "FB207",
        /// The image lacks a program or a unit that the node or the seed needs.
        ProgramMissing = "FB208",
        /// The image's kernel lacks what Kubernetes needs.
        KernelUnfit = "FB209",
        /// The image brings a machine-id, so every device flashed from it has the same one.
        MachineIdInImage = "FB210",
        /// The bundle's signature is missing, or is not by a key of the image.
        BundleSignature = "FB211",
        /// The image has no container images of a control plane, and the seed creates a cluster.
        ControlPlaneImages = "FB212",
    }
    Host {
        /// A file, command or kernel setting of this device failed, for the reason in the text.
        Host = "FB300",
        /// The command needs root.
        NotRoot = "FB301",
        /// The disk of the root file system, or its boot partition, cannot be found or read.
        BootDisk = "FB302",
        /// The root file system has too little free space.
        DiskFull = "FB303",
        /// The root file system is read-only.
        DiskReadOnly = "FB304",
        /// The medium loses or damages what was written to it.
        MediumWorn = "FB305",
        /// The device has too little memory.
        Memory = "FB306",
        /// The kernel's memory cgroup controller is off.
        CgroupMemory = "FB307",
        /// Another program listens on kubelet's port.
        PortInUse = "FB308",
        /// Another join left files on this device.
        LeftoverFiles = "FB309",
        /// Something on this device undoes what firstboot set.
        SettingUndone = "FB310",
        /// The clock of this device is wrong.
        ClockWrong = "FB311",
        /// containerd does not answer or is not ready.
        ContainerdDown = "FB312",
        /// kubelet does not become healthy.
        KubeletUnhealthy = "FB313",
        /// The device shows no Wi-Fi interface.
        NoWifi = "FB314",
        /// The seed's token still stands elsewhere on the boot partition.
        TokenLeft = "FB315",
        /// The seed could not be destroyed.
        SeedNotDestroyed = "FB316",
        /// The node's certificate, its key or the cluster's CA certificate cannot be used.
        NodeCredential = "FB317",
        /// firstboot's own record of this device is damaged or incomplete.
        StateDamaged = "FB318",
        /// Another firstboot process holds the lock for too long.
        StateLocked = "FB319",
        /// The packet filter cannot be loaded.
        PacketFilter = "FB320",
        /// The kernel does not let the join worker give up its rights.
        NotConfined = "FB321",
        /// Hardened settings of this device have drifted.
        AuditDrift = "FB322",
        /// A reset stopped at something that it does not or cannot remove.
        ResetStopped = "FB323",
        /// There is no status on this device.
        NoStatus = "FB324",
        /// A proxy in the environment stands between kubelet and the API server.
        ProxyEnvironment = "FB325",
        /// A slot on trial was not good in time, or used up its tries.
        SlotFailed = "FB326",
        /// The board reports that its power supply is too weak.
        Power = "FB327",
        /// The disk holds less than it says.
        DiskSize = "FB328",
        /// The boot loader in the board's own memory is too old.
        OldBootLoader = "FB329",
        /// The control plane of this device cannot be created, or is damaged.
        ControlPlane = "FB330",
        /// The disk is too slow for etcd.
        SlowDisk = "FB331",
    }
    Cluster {
        /// The cluster or the network failed in a way that has no code of its own.
        Cluster = "FB400",
        /// No network interface has a link.
        NoLink = "FB401",
        /// The interface that the seed names is not there.
        NoInterface = "FB402",
        /// The Wi-Fi network does not let the device in, or is out of reach.
        WifiNotConnected = "FB403",
        /// There is a link, but no address or no route to the API server.
        NoRoute = "FB404",
        /// DNS does not resolve the API server's name.
        NameNotResolved = "FB405",
        /// The proxy does not let the connection through.
        Proxy = "FB406",
        /// The API server's address refuses the connection.
        ConnectionRefused = "FB407",
        /// The API server's address gives no answer.
        Unreachable = "FB408",
        /// The connection to the API server was cut.
        ConnectionCut = "FB409",
        /// What answers is not the Kubernetes API.
        NotKubernetes = "FB410",
        /// The API server answered with an error.
        ApiError = "FB411",
        /// The API server does not accept the credential, or does not permit the request (401, 403).
        NotPermitted = "FB412",
        /// The API server's certificate does not cover its address.
        NameMismatch = "FB413",
        /// The API server's certificate is not signed by the cluster's CA.
        UnknownCa = "FB414",
        /// The API server's certificate has expired or is not yet valid.
        CertificateDates = "FB415",
        /// TLS with the API server failed for another reason.
        Tls = "FB416",
        /// The API server gives no time, or one that cannot be right.
        ClusterTime = "FB417",
        /// The cluster's CA does not match the seed's `ca-cert-hashes`.
        PinMismatch = "FB418",
        /// The signature of cluster-info does not match the token.
        SignatureMismatch = "FB419",
        /// The cluster does not know the token, or does not accept it.
        TokenUnknown = "FB420",
        /// The token has expired.
        TokenExpired = "FB421",
        /// The ConfigMap cluster-info cannot be read or used.
        ClusterInfo = "FB422",
        /// kubeadm's ConfigMaps in kube-system cannot be read or used.
        ClusterConfiguration = "FB423",
        /// A Ready node of the same name is in the cluster.
        NodeNameTaken = "FB424",
        /// The certificate request waits for approval.
        CsrPending = "FB425",
        /// The certificate request is approved, but the cluster's signer gives no usable certificate.
        CsrNotSigned = "FB426",
        /// The certificate request was denied, failed or deleted.
        CsrRejected = "FB427",
        /// The unprivileged join worker of the join failed, or said what cannot be right.
        NetworkPart = "FB428",
        /// The node does not become Ready, or its Lease is not renewed.
        NodeNotReady = "FB429",
        /// The cluster gives the node no podCIDR.
        NoPodCidr = "FB430",
        /// kubelet does not start with what the cluster's ConfigMap kubelet-config says.
        ClusterKubeletConfig = "FB431",
        /// The API server is older than the image's kubelet.
        ClusterTooOld = "FB432",
    }
}

impl Code {
    /// The code with this text.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text).ok_or_else(|| serde::de::Error::custom("unknown code"))
    }
}

/// An error with its code. The text is one line: verb, object, path or field, never a secret.
#[derive(Debug)]
pub struct Fault {
    /// Which kind of fault it is, and so who must act.
    pub code: Code,
    /// The chain of causes, outermost first; printed once.
    pub cause: anyhow::Error,
    /// How long the server asks firstboot to wait, where it does.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault of this kind with this text.
    pub fn new(code: Code, text: impl fmt::Display) -> Self {
        Fault { code, cause: anyhow::anyhow!("{text}"), retry_after: None }
    }

    /// Who must act.
    pub fn owner(&self) -> Owner {
        self.code.owner()
    }

    /// [`Code::tag`] of this fault.
    pub fn tag(&self) -> String {
        self.code.tag()
    }
}

impl fmt::Display for Fault {
    /// The whole chain on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl std::error::Error for Fault {}

/// Gives an error its code, or only its owner: `std::fs::read(p).owned_by(Owner::Host)?`. An error that is a fault
/// already, or has one among its causes, keeps that code and all of its text.
pub trait OwnedBy<T> {
    /// Says which kind of fault this is.
    fn coded(self, code: Code) -> Result<T, Fault>;

    /// Says who must act when this fails, for errors without a code of their own.
    fn owned_by(self, owner: Owner) -> Result<T, Fault>;
}

impl<T, E: Into<anyhow::Error>> OwnedBy<T> for Result<T, E> {
    fn coded(self, code: Code) -> Result<T, Fault> {
        self.map_err(|error| of_cause(error.into(), code))
    }

    fn owned_by(self, owner: Owner) -> Result<T, Fault> {
        self.map_err(|error| by_system(of_cause(error.into(), owner.general())))
    }
}

/// Outside of the trait, whose functions the compiler copies for each type of result: 30 KiB of the device binary.
#[inline(never)]
fn of_cause(cause: anyhow::Error, code: Code) -> Fault {
    // With a context around it the downcast would drop that text.
    if cause.chain().next().is_some_and(|outermost| outermost.is::<Fault>()) {
        return cause.downcast::<Fault>().unwrap_or_else(|cause| Fault { code, cause, retry_after: None });
    }
    let (code, retry_after) =
        cause.downcast_ref::<Fault>().map_or((code, None), |fault| (fault.code, fault.retry_after));
    Fault { code, cause, retry_after }
}

/// The number of the system's error that is behind an error, if there is one.
pub(crate) fn error_number(error: &anyhow::Error) -> Option<Errno> {
    let number = |cause: &(dyn std::error::Error + 'static)| {
        let errno = || cause.downcast_ref::<Errno>().copied();
        cause.downcast_ref().and_then(Errno::from_io_error).or_else(errno)
    };
    error.chain().find_map(number)
}

/// Names the system's errors about which a person does something in particular.
#[inline(never)]
fn by_system(fault: Fault) -> Fault {
    if fault.code != Code::Host {
        return fault;
    }
    let code = match error_number(&fault.cause) {
        Some(Errno::NOSPC) => Code::DiskFull,
        Some(Errno::ROFS) => Code::DiskReadOnly,
        Some(Errno::IO) => Code::MediumWorn,
        _ => fault.code,
    };
    Fault { code, ..fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_that_has_a_code_keeps_it_and_its_whole_text() {
        let inner = || -> Result<(), anyhow::Error> { Err(Fault::new(Code::StateLocked, "lock /x").into()) };
        let fault = inner().owned_by(Owner::Cluster).unwrap_err();
        assert_eq!((fault.code, fault.to_string().as_str()), (Code::StateLocked, "lock /x"));
        let fault = inner().context("write /y").owned_by(Owner::Cluster).unwrap_err();
        assert_eq!((fault.code, fault.to_string().as_str()), (Code::StateLocked, "write /y: lock /x"));
        assert_eq!((fault.owner(), fault.tag().as_str()), (Owner::Host, "host, FB319"));
    }

    #[test]
    fn faults_of_the_disk_have_codes_of_their_own() {
        let of = |number: Errno| {
            let error = Err::<(), _>(std::io::Error::from(number)).context("write /x");
            error.owned_by(Owner::Host).unwrap_err().code
        };
        assert_eq!([of(Errno::NOSPC), of(Errno::ROFS)], [Code::DiskFull, Code::DiskReadOnly]);
        assert_eq!([of(Errno::IO), of(Errno::ACCESS)], [Code::MediumWorn, Code::Host]);
        assert_eq!(Err::<(), _>(Errno::NOSPC).owned_by(Owner::Host).unwrap_err().code, Code::DiskFull);
        assert_eq!(Err::<(), _>(Errno::NOSPC).owned_by(Owner::Image).unwrap_err().code, Code::Image);
    }
}
