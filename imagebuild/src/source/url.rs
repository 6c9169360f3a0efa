// SPDX-License-Identifier: Apache-2.0
//! Source `url`: a download, or one file of a downloaded `.tar.gz`.

use super::Request;
use crate::arch::Arch;
use crate::{digest, http, verify};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Downloads for the requested architecture and checks the digest before reading the content.
pub fn fetch(
    request: &Request,
    url: &BTreeMap<Arch, String>,
    sha256: &BTreeMap<Arch, String>,
    member: Option<&str>,
    to: &Path,
) -> Result<()> {
    let url = request.of_arch(url, "url")?;
    let expected = request.of_arch(sha256, "sha256")?;
    let name = request.name();
    let download = to.with_extension("download");
    let mut file = File::create(&download).with_context(|| format!("create {}", download.display()))?;
    http::get(url, http::Limit::FILE, &mut file).with_context(|| format!("download component {name}"))?;
    verify::expect(name, &format!("download {url}"), expected, &digest::file(&download)?)?;
    match member {
        None => std::fs::rename(&download, to).with_context(|| format!("rename {}", download.display())),
        Some(member) => {
            extract(&download, member, to).with_context(|| format!("unpack component {name} from {url}"))?;
            std::fs::remove_file(&download).with_context(|| format!("remove {}", download.display()))
        }
    }
}

/// Writes the regular file `member` of a `.tar.gz` to `to`. A leading `./` does not count.
fn extract(archive: &Path, member: &str, to: &Path) -> Result<()> {
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar.entries().context("read archive")? {
        let mut entry = entry.context("read archive")?;
        let path = entry.path().context("read a name in the archive")?.into_owned();
        let plain = path.strip_prefix("./").unwrap_or(&path);
        if plain == Path::new(member.trim_start_matches("./")) && entry.header().entry_type().is_file() {
            let mut out = File::create(to).with_context(|| format!("create {}", to.display()))?;
            std::io::copy(&mut entry, &mut out).with_context(|| format!("unpack {member}"))?;
            return Ok(());
        }
    }
    bail!("find file {member} in the archive")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{fetch_thing, lock};
    use super::*;
    use crate::http::testing::Server;

    fn entry(server: &Server, path: &str, sha256: &str, member: &str) -> String {
        let url = server.url(path);
        format!("source.url = {{ url = {{ amd64 = \"{url}\" }}, sha256 = {{ amd64 = \"{sha256}\" }}{member} }}")
    }

    #[test]
    fn downloads_and_stops_when_something_else_came() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(vec![("/program", b"bytes".to_vec())]);
        let found = digest::bytes(b"bytes");
        let good = lock(dir.path(), &entry(&server, "/program", &found, ""));
        assert_eq!(fetch_thing(&good).unwrap(), b"bytes");
        let url = server.url("/program");
        assert_eq!(
            fetch_thing(&lock(dir.path(), &entry(&server, "/program", "00", ""))).unwrap_err(),
            format!("verify component thing: download {url}: expected 00, found {found}")
        );
        let url = server.url("/absent");
        assert_eq!(
            fetch_thing(&lock(dir.path(), &entry(&server, "/absent", "00", ""))).unwrap_err(),
            format!("download component thing: get {url}: 404 Not Found")
        );
    }

    #[test]
    fn takes_one_file_out_of_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o755);
        tar.append_data(&mut header, "./bin/tool", &b"abc"[..]).unwrap();
        let archive = tar.into_inner().unwrap().finish().unwrap();
        let sha256 = digest::bytes(&archive);
        let server = Server::start(vec![("/all.tar.gz", archive)]);
        let with = |member: &str| lock(dir.path(), &entry(&server, "/all.tar.gz", &sha256, member));
        assert_eq!(fetch_thing(&with(", member = \"bin/tool\"")).unwrap(), b"abc");
        assert_eq!(
            fetch_thing(&with(", member = \"bin/other\"")).unwrap_err(),
            format!("unpack component thing from {}: find file bin/other in the archive", server.url("/all.tar.gz"))
        );
    }

    #[test]
    fn closed_port_is_an_error_with_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        drop(listener);
        let text = format!("source.url = {{ url = {{ amd64 = \"{url}\" }}, sha256 = {{ amd64 = \"00\" }} }}");
        let error = fetch_thing(&lock(dir.path(), &text)).unwrap_err();
        assert!(error.starts_with(&format!("download component thing: get {url}: ")), "{error}");
    }
}
