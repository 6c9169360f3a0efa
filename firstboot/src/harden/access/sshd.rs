// SPDX-License-Identifier: Apache-2.0
//! sshd's configuration: keys only, one account, modern algorithms, no forwarding. Each line has its reason.
//!
//! Format: sshd_config(5).

use crate::harden::login::BANNER;
use crate::seed::Access;

/// Directory of the authorized keys. Root owns it, so that a user cannot add keys.
pub const KEYS_DIR: &str = "/etc/ssh/authorized_keys.d";
/// The device's own key.
pub const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// Keyword, value, reason. `USER` stands for the account.
#[rustfmt::skip]
pub const DIRECTIVES: &[(&str, &str, &str)] = &[
    ("HostKey", "/etc/ssh/ssh_host_ed25519_key", "generated on the device with the first seed that has keys; no two devices share one"),
    ("AllowUsers", "USER", "no other account"),
    ("AuthenticationMethods", "publickey", "keys only"),
    ("AuthorizedKeysFile", "/etc/ssh/authorized_keys.d/%u", "the seed's keys, in a file of root's: a user cannot add others"),
    ("PasswordAuthentication", "no", "there are no passwords"),
    ("KbdInteractiveAuthentication", "no", "there are no passwords, by keyboard-interactive prompts either"),
    ("PermitEmptyPasswords", "no", "there are no passwords, empty ones either"),
    ("HostbasedAuthentication", "no", "no other machine vouches for its users"),
    ("GSSAPIAuthentication", "no", "no Kerberos here"),
    ("PermitRootLogin", "no", "root never logs in"),
    ("KexAlgorithms", "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org", "recorded sessions stay secret from later machines where the client can do it; no NIST curves, no groups of unknown origin"),
    ("HostKeyAlgorithms", "ssh-ed25519", "the one host key"),
    ("PubkeyAcceptedAlgorithms", "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256", "what a seed's keys may be; no SHA-1"),
    ("RequiredRSASize", "3072", "as the seed parser requires"),
    ("Ciphers", "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com", "encryption that proves its content; the first needs no AES instructions, which small boards lack"),
    ("MACs", "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com", "for ciphers that do not prove their content; none is offered"),
    ("LoginGraceTime", "30", "connections that do not log in are closed soon"),
    ("MaxAuthTries", "3", "few tries for each connection"),
    ("MaxSessions", "2", "a shell and a copy beside it"),
    ("MaxStartups", "4:50:10", "a flood of connections stays small"),
    ("ClientAliveInterval", "300", "forgotten sessions end"),
    ("ClientAliveCountMax", "2", "forgotten sessions end, after ten minutes"),
    ("TCPKeepAlive", "no", "ClientAliveInterval does it, and cannot be forged"),
    ("DisableForwarding", "yes", "the device is no way into the network behind it"),
    ("AllowTcpForwarding", "no", "no tunnels, repeated for tools that read this file"),
    ("AllowAgentForwarding", "no", "no use of the visitor's other keys"),
    ("X11Forwarding", "no", "no windows"),
    ("PermitTunnel", "no", "no tunnels of packets"),
    ("GatewayPorts", "no", "no ports for others"),
    ("PermitUserEnvironment", "no", "no loader variables through the back door"),
    ("PermitUserRC", "no", "nothing runs at log-in but the shell"),
    ("IgnoreRhosts", "yes", "no trust by files in a home"),
    ("StrictModes", "yes", "key files that others may write are not read"),
    ("Compression", "no", "less code before and after log-in"),
    ("UseDNS", "no", "no waiting for name servers"),
    ("UsePAM", "yes", "limits and the log of sessions; without it an account whose password is locked cannot log in by key"),
    ("PrintMotd", "no", "there is no message of the day"),
    ("Banner", BANNER, "visitors are warned, and learn nothing about the system"),
    ("LogLevel", "VERBOSE", "the log records which key logged in"),
    ("Subsystem", "sftp internal-sftp", "files can be fetched, by no program of its own"),
];

/// sshd_config for this account.
pub fn config(user: &str) -> String {
    let line = |(key, value, why): &(&str, &str, &str)| format!("# {why}\n{key} {}\n", value.replace("USER", user));
    format!("# Written by firstboot.\n{}", DIRECTIVES.iter().map(line).collect::<String>())
}

/// The authorized keys: each permits a terminal and nothing else, from the seed's source networks.
pub fn keys(access: &Access) -> String {
    let from: Vec<String> = access.from.iter().map(ToString::to_string).collect();
    let from = if from.is_empty() { String::new() } else { format!("from=\"{}\",", from.join(",")) };
    access.keys.iter().map(|key| format!("{from}restrict,pty {key}\n")).collect()
}

/// Where the effective configuration (`sshd -T`) differs: keyword and what was found.
pub fn differences(effective: &str, user: &str) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    for (key, value, _) in DIRECTIVES {
        let name = key.to_ascii_lowercase();
        let found: Vec<&str> =
            effective.lines().filter_map(|l| l.split_once(' ')).filter(|(k, _)| *k == name).map(|(_, v)| v).collect();
        if found != [value.replace("USER", user)] {
            let found = if found.is_empty() { "missing".to_owned() } else { found.join(", ") };
            wrong.push((*key, found));
        }
    }
    wrong
}

#[cfg(test)]
#[path = "sshd_tests.rs"]
mod tests;
