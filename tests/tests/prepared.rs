// SPDX-License-Identifier: Apache-2.0
//! The bundle's containerd state, given to the containerd that is in the bundle: it knows the images, and shows their files
//! as if it had unpacked them itself. Natively, as root, in namespaces of its own.

#![allow(clippy::unwrap_used)]

use firstboot::bundle::BUNDLE_DIR;
use firstboot::containerd::cri::Cri;
use firstboot::host::fake::Fake;
use firstboot::paths::CONTAINERD_ROOT;
use imagebuild::arch::Arch;
use imagebuild::bundle::{self, Bundle};
use imagebuild::digest;
use imagebuild::lock::{Image, ImageSource, Lock};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tar::{EntryType, Header};

/// Runs in namespaces of its own, with the tar of the bundle, a scratch directory in memory, an archive of all images and one of
/// the image that is not in the bundle, and the chain ids of all as arguments after it. `/usr` is covered by a layer of its own, so that the bundle can be where it belongs; the bundle itself is
/// in memory, because no overlayfs takes whiteouts.
const SCRIPT: &str = r#"
set -euo pipefail
tar=$1 scratch=$2 archive=$3 pulled=$4
shift 4
mount --make-rprivate /
mkdir $scratch/upper $scratch/work
mount -t overlay -o lowerdir=/usr,upperdir=$scratch/upper,workdir=$scratch/work overlay /usr
mount -t tmpfs none /var/lib
mkdir -p /usr/lib/firstboot/bundle
mount -t tmpfs none /usr/lib/firstboot/bundle
tar --extract --preserve-permissions --same-owner --numeric-owner --xattrs --xattrs-include='*' --file $tar --directory /
bundle=/usr/lib/firstboot/bundle

# Starts containerd on a root directory, and waits until it answers.
start() {
    mkdir -p $scratch/$1/run/containerd
    cat >$scratch/$1/config.toml <<END
version = 3
root = "$2"
state = "$scratch/$1/run/containerd"
[grpc]
  address = "$scratch/$1/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.2"
END
    /usr/bin/containerd --config $scratch/$1/config.toml 2>$scratch/$1/log &
    for attempt in $(seq 300); do
        if ctr $1 version >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    cat $scratch/$1/log >&2
    exit 1
}
ctr() {
    local of=$1
    shift
    /usr/bin/ctr --address $scratch/$of/run/containerd/containerd.sock --namespace k8s.io "$@"
}
# What a chain of layers shows, as a tar.
show() {
    mkdir $scratch/$1/view-$3
    eval "$(ctr $1 snapshots --snapshotter overlayfs view --target $scratch/$1/view-$3 view-$3 $2)"
    tar --create --sort=name --numeric-owner --format=posix --mtime=@0 --xattrs --xattrs-include='*' \
        --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime \
        --file $scratch/$1/view-$3.tar --directory $scratch/$1/view-$3 .
}

# As the guard and containerd.service do.
cp --archive $bundle/containerd /var/lib/containerd
mount --all --fstab /var/lib/containerd/layers.fstab
start ours /var/lib/containerd
mkdir $scratch/other
start other $scratch/other/root
ctr other images import $archive >&2
layers() { ls /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots | wc -l; }
layers >$scratch/layers
ctr ours images import $pulled >&2
layers >>$scratch/layers
n=0
for chain in "$@"; do
    n=$((n + 1))
    show ours $chain $n
    show other $chain $n
done

# A container with user namespaces: its files belong to its own root.
ctr ours run --detach --runc-root $scratch/runc --uidmap 0:100000:65536 --gidmap 0:200000:65536 --remap-labels \
    registry.k8s.io/pause:3.10.2 mapped >&2
stat --format='%u %g' $scratch/ours/run/containerd/io.containerd.runtime.v2.task/k8s.io/mapped/rootfs/pause >$scratch/owner
echo ready
read -r
"#;

fn header(kind: EntryType, mode: u32, id: u64, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(id);
    header.set_gid(id);
    header.set_size(size as u64);
    header.set_mtime(0);
    header
}

/// What is written to a layer.
type Layer = tar::Builder<Vec<u8>>;

fn file(layer: &mut Layer, path: &str, mode: u32, id: u64, bytes: &[u8]) {
    layer.append_data(&mut header(EntryType::Regular, mode, id, bytes.len()), path, bytes).unwrap();
}

fn directory(layer: &mut Layer, path: &str, mode: u32, id: u64) {
    layer.append_data(&mut header(EntryType::Directory, mode, id, 0), path, &[][..]).unwrap();
}

fn layer(fill: impl FnOnce(&mut Layer)) -> Vec<u8> {
    let mut layer = Layer::new(Vec::new());
    fill(&mut layer);
    layer.into_inner().unwrap()
}

/// The layer that both images begin with.
fn base() -> Vec<u8> {
    layer(|to| {
        directory(to, "./", 0o755, 0);
        directory(to, "./etc/", 0o750, 7);
        file(to, "./etc/changed", 0o644, 0, b"old");
        file(to, "./etc/gone", 0o644, 0, b"gone");
        for name in ["old", "again", "later"] {
            directory(to, &format!("./{name}/"), 0o755, 0);
            file(to, &format!("./{name}/x"), 0o644, 0, b"x");
        }
        directory(to, "./usr/", 0o755, 0);
        directory(to, "./usr/sbin/", 0o755, 0);
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        to.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
        // Not of a file with a second name: containerd's chown of that one takes the capability away again.
        file(to, "./usr/sbin/bind", 0o755, 0, b"bind");
        file(to, "./usr/sbin/tool", 0o755, 0, b"tool");
        to.append_link(&mut header(EntryType::Link, 0o755, 0, 0), "./usr/sbin/alias", "./usr/sbin/tool").unwrap();
        to.append_link(&mut header(EntryType::Symlink, 0o777, 0, 0), "./sbin", "usr/sbin").unwrap();
        file(to, "./usr/sbin/set-user", 0o4755, 1000, b"x");
        let mut null = header(EntryType::Char, 0o666, 0, 0);
        null.set_device_major(1).unwrap();
        null.set_device_minor(3).unwrap();
        to.append_data(&mut null, "./null", &[][..]).unwrap();
        to.append_data(&mut header(EntryType::Fifo, 0o600, 5, 0), "./pipe", &[][..]).unwrap();
    })
}

/// Removals and replacements. A directory that is removed and made again in one layer is not among them: containerd 2.4 then
/// shows what was in it before, against the specification.
fn upper() -> Vec<u8> {
    layer(|to| {
        file(to, "etc/.wh.gone", 0o644, 0, b"");
        directory(to, "old", 0o755, 0);
        file(to, "old/.wh..wh..opq", 0o644, 0, b"");
        file(to, "old/y", 0o644, 0, b"y");
        directory(to, "again", 0o700, 3);
        file(to, "again/.wh.x", 0o644, 0, b"");
        file(to, "again/z", 0o644, 0, b"z");
        file(to, "usr/sbin/.wh.alias", 0o644, 0, b"");
    })
}

fn top() -> Vec<u8> {
    layer(|to| {
        file(to, "etc/changed", 0o600, 1, b"new");
        file(to, ".wh.sbin", 0o644, 0, b"");
        file(to, "later/.wh.x", 0o644, 0, b"");
    })
}

/// The top of another image on the same base.
fn another(text: &str) -> Vec<u8> {
    layer(|to| file(to, "etc/changed", 0o640, 2, text.as_bytes()))
}

/// The blobs of an image of these layers, as a registry has them, compressed, and the digest of its manifest.
fn image(layers: &[Vec<u8>], blobs: &mut BTreeMap<String, Vec<u8>>) -> String {
    let mut put = |bytes: Vec<u8>| {
        let digest = format!("sha256:{}", digest::bytes(&bytes));
        let size = bytes.len();
        blobs.insert(digest.clone(), bytes);
        (digest, size)
    };
    let mut stored = Vec::new();
    for layer in layers {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(layer).unwrap();
        let (digest, size) = put(gzip.finish().unwrap());
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        stored.push(json!({ "mediaType": media_type, "digest": digest, "size": size }));
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", digest::bytes(layer))).collect();
    let config = json!({
        "architecture": Arch::host().unwrap().name(), "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let (digest, size) = put(config.to_string().into());
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size });
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    put(json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": stored }).to_string().into()).0
}

/// A registry that has these blobs; its address.
fn registry(blobs: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let blobs = Arc::new(blobs);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, blobs) = (stream.unwrap(), blobs.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                lines.find(String::is_empty);
                let path = request.split(' ').nth(1).unwrap_or_default();
                let blob = blobs.get(path.rsplit('/').next().unwrap_or_default());
                let (status, bytes) = blob.map_or(("404 Not Found", &[][..]), |bytes| ("200 OK", bytes.as_slice()));
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(bytes));
            });
        }
    });
    address
}

/// The repository's lock with containerd's programs, the pause image, and these images of a registry.
fn lock(images: &[(&str, String)], address: &str) -> Lock {
    let mut lock = Lock::find().unwrap();
    for component in &mut lock.components {
        let needed = ["containerd", "containerd-shim-runc-v2", "ctr", "runc"].contains(&component.name.as_str());
        component.install = component.install.take().filter(|_| needed);
    }
    lock.images.retain(|image| image.sandbox);
    for (name, digest) in images {
        let from =
            ImageSource::Registry { image: format!("{address}/{name}"), digest: digest.clone(), plain_http: true };
        let (reference, version) = (format!("example.org/{name}:1"), "1".to_owned());
        let name = (*name).into();
        lock.images.push(Image {
            name,
            reference,
            version,
            kubernetes: None,
            sandbox: false,
            control_plane: false,
            from,
        });
    }
    lock
}

/// An archive of the images with their layers, for containerd to unpack.
fn archive(images: &[(&str, String)], blobs: &BTreeMap<String, Vec<u8>>, to: &Path) {
    let mut tar = tar::Builder::new(File::create(to).unwrap());
    let mut put = |name: &str, bytes: &[u8]| {
        tar.append_data(&mut header(EntryType::Regular, 0o644, 0, bytes.len()), name, bytes).unwrap();
    };
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let manifests: Vec<_> = images
        .iter()
        .map(|(name, digest)| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": blobs[digest].len(),
                "annotations": { "io.containerd.image.name": format!("example.org/{name}:1") },
                "platform": { "architecture": Arch::host().unwrap().name(), "os": "linux" },
            })
        })
        .collect();
    put("index.json", json!({ "schemaVersion": 2, "manifests": manifests }).to_string().as_bytes());
    for (digest, bytes) in blobs {
        put(&digest.replace("sha256:", "blobs/sha256/"), bytes);
    }
    tar.finish().unwrap();
}

#[test]
#[ignore = "needs root"]
fn containerd_shows_the_bundles_images_as_if_it_had_unpacked_them() {
    let mut blobs = BTreeMap::new();
    let layered = image(&[base(), upper(), top()], &mut blobs);
    let sharing = image(&[base(), another("in the bundle")], &mut blobs);
    let pulled = image(&[base(), another("pulled later")], &mut blobs);
    let images = [("layered", layered), ("sharing", sharing), ("pulled", pulled)];
    let lock = lock(&images[..2], &registry(blobs.clone()));
    let dir = tempfile::tempdir().unwrap();
    let build = |name: &str| -> Bundle {
        let to = dir.path().join(name);
        std::fs::create_dir(&to).unwrap();
        bundle::build(&lock, Arch::host().unwrap(), &to).unwrap()
    };
    let bundle = build("first");
    // The same bytes each time, and so the same root hash.
    assert_eq!(digest::file(&build("second").tar()).unwrap(), digest::file(&bundle.tar()).unwrap());
    archive(&images, &blobs, &dir.path().join("images.tar"));
    archive(&images[2..], &blobs, &dir.path().join("pulled.tar"));

    // overlayfs has its upper layer on no overlayfs; a tmpfs is none.
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut chains: Vec<String> = bundle.manifest.images.iter().skip(1).map(|image| image.chain_id.clone()).collect();
    let [below, above] = [base(), another("pulled later")].map(digest::bytes);
    chains.push(format!("sha256:{}", digest::bytes(format!("sha256:{below} sha256:{above}"))));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", SCRIPT, "bash"]);
    command.arg(bundle.tar()).arg(scratch.path()).arg(dir.path().join("images.tar"));
    command.arg(dir.path().join("pulled.tar")).args(&chains);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    let log = || std::fs::read_to_string(scratch.path().join("ours/log")).unwrap_or_default();
    assert_eq!(said, "ready\n", "{}", log());

    // CRI knows every image of the bundle.
    let cri = Cri::connect(&Fake::new().0.sockets_below(&scratch.path().join("ours"))).unwrap();
    for image in &bundle.manifest.images {
        assert!(cri.image(&image.name).unwrap().is_some(), "{}", image.name);
    }
    let read = |path: &str| {
        let mut bytes = Vec::new();
        File::open(scratch.path().join(path)).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    // Of the image that was pulled only the layer that the bundle has not.
    assert_eq!(String::from_utf8(read("layers")).unwrap(), "5\n6\n");
    for n in 1..=chains.len() {
        let (ours, theirs) = (read(&format!("ours/view-{n}.tar")), read(&format!("other/view-{n}.tar")));
        assert_eq!(members(&ours), members(&theirs), "image {n}");
        assert_eq!(digest::bytes(&ours), digest::bytes(&theirs), "image {n}");
    }
    // What is to be seen at all: the tar of an empty directory is equal to another one, too.
    let seen = members(&read("ours/view-1.tar"));
    let has = |path: &str| seen.iter().any(|(name, ..)| name == path);
    assert!(has("./again/z") && has("./old/y") && has("./usr/sbin/bind") && has("./null") && has("./later/"));
    for gone in ["./etc/gone", "./old/x", "./again/x", "./sbin", "./later/x", "./usr/sbin/alias"] {
        assert!(!has(gone), "{gone} is there");
    }
    assert_eq!(String::from_utf8(read("owner")).unwrap(), "100000 200000\n");
    drop(child.stdin.take());
    child.wait().unwrap();
    // Where the device has them.
    let mounts = String::from_utf8(tar_member(&bundle, "containerd/layers.fstab")).unwrap();
    let first = format!("{BUNDLE_DIR}/layers/{} {CONTAINERD_ROOT}/", bundle.manifest.images[0].layers[0]);
    assert!(mounts.starts_with(&first), "{mounts}");
    // One each for the layers of pause and of the two images, which share one.
    assert_eq!(mounts.lines().count(), 1 + 3 + 1);
}

/// Name, kind, mode, owner and extended attributes of each member.
fn members(tar: &[u8]) -> Vec<(String, u8, u32, u64, String)> {
    let mut archive = tar::Archive::new(tar);
    let one = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let attributes: Vec<String> = (entry.pax_extensions().unwrap().into_iter().flatten())
            .map(|extension| format!("{:?}", extension.unwrap().key()))
            .collect();
        let header = entry.header();
        let (kind, mode, uid) = (header.entry_type().as_byte(), header.mode().unwrap(), header.uid().unwrap());
        (entry.path().unwrap().display().to_string(), kind, mode, uid, attributes.join(" "))
    };
    archive.entries().unwrap().map(one).collect()
}

/// A file of the bundle.
fn tar_member(bundle: &Bundle, path: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(File::open(bundle.tar()).unwrap());
    let name = format!("{}/{path}", &BUNDLE_DIR[1..]);
    let mut entry =
        archive.entries().unwrap().map(Result::unwrap).find(|e| e.path().unwrap().ends_with(&name)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}
