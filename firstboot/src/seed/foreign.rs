// SPDX-License-Identifier: Apache-2.0
//! Join lines and tokens of other tools: each is named, with what firstboot takes instead.

/// What prints the line that firstboot takes.
pub(super) const PRINTS: &str = "kubeadm token create --print-join-command";

/// A tool that joins machines to a cluster.
struct Tool {
    /// Words of its lines: program and subcommand, or a word that is enough.
    marks: &'static [&'static str],
    /// Its name for messages.
    name: &'static str,
    /// Whether kubeadm makes the clusters beneath it.
    kubeadm: bool,
}

const fn tool(marks: &'static [&'static str], name: &'static str, kubeadm: bool) -> Tool {
    Tool { marks, name, kubeadm }
}

/// Tools by their lines, the more special ones first.
const TOOLS: [Tool; 17] = [
    tool(&["yurtadm join"], "yurtadm (OpenYurt)", true),
    tool(&["keadm join"], "keadm (KubeEdge)", true),
    tool(&["kk add", "kk join"], "KubeKey", true),
    tool(&["sealos add", "sealos join"], "sealos", true),
    tool(&["kurl.sh"], "kURL", true),
    tool(&["minikube node", "minikube start"], "minikube", true),
    tool(
        &["rke2", "rke2-agent", "rke2-agent.service", "rke2.io", "get.rke2.io", "RKE2_URL", "INSTALL_RKE2_TYPE"],
        "RKE2",
        false,
    ),
    tool(&["k3s agent", "k3s server", "k3s-agent", "get.k3s.io", "k3sup join", "K3S_URL", "K3S_TOKEN"], "k3s", false),
    tool(&["k0s worker", "k0s install", "k0s token", "k0s controller", "get.k0s.sh", "k0sctl apply"], "k0s", false),
    tool(&["microk8s join", "microk8s.join", "microk8s add-node"], "MicroK8s", false),
    tool(&["k8s join-cluster"], "Canonical Kubernetes", false),
    tool(&["docker swarm"], "Docker Swarm", false),
    tool(&["rancher-agent", "system-agent-install.sh"], "Rancher", false),
    tool(&["talosctl"], "Talos", false),
    tool(&["nodeadm init", "nodeadm install", "bootstrap.sh"], "EKS", false),
    tool(&["eksctl", "gcloud", "az aks"], "a cloud provider", false),
    tool(&["edgectl", "edgecore"], "KubeEdge", true),
];

/// Says which tool a line belongs to, if it is known.
pub(super) fn line(text: &str) -> Option<String> {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "'\"`|;&()[],".contains(c))
        .filter(|word| !word.is_empty())
        .map(|word| word.rsplit('/').find(|part| !part.is_empty()).unwrap_or(word))
        .map(|word| word.split_once('=').map_or(word, |(name, _)| name))
        .collect();
    let has = |mark: &str| match mark.split_once(' ') {
        Some((program, subcommand)) => words.windows(2).any(|pair| pair[0] == program && pair[1] == subcommand),
        None => words.contains(&mark),
    };
    if has("kubeadm init") || has("kubeadm token") && has("token create") {
        return Some(format!("this command makes a cluster or a token; give the line that {PRINTS} prints"));
    }
    let tool = TOOLS.iter().find(|tool| tool.marks.iter().any(|mark| has(mark)))?;
    Some(match tool.kubeadm {
        true => format!(
            "this is a line of {}, and firstboot takes kubeadm's: give what {PRINTS} prints on the control plane",
            tool.name
        ),
        false => format!(
            "this is a line of {}, and firstboot joins clusters of kubeadm: give what {PRINTS} prints there",
            tool.name
        ),
    })
}

/// Says what a text is that is no bootstrap token, if it is known.
pub(super) fn token(text: &str) -> Option<&'static str> {
    let hexadecimal = |length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_address = || {
        let port = text.rsplit_once(':').map(|(_, port)| port);
        port.is_some_and(|p| p.parse::<u16>().is_ok()) || text.parse::<std::net::IpAddr>().is_ok()
    };
    if text.starts_with("K10") && text.contains("::") {
        return Some("this is a token of k3s or RKE2, and firstboot joins clusters of kubeadm");
    }
    if text.starts_with("H4sI") {
        return Some("this is a join token of k0s, and firstboot joins clusters of kubeadm");
    }
    if text.starts_with("SWMTKN-") {
        return Some("this is a token of Docker Swarm, and firstboot joins clusters of kubeadm");
    }
    if text.starts_with("eyJ") || text.contains(".eyJ") {
        return Some("this is a JSON Web Token, as of KubeEdge or a service account, and not a bootstrap token");
    }
    if text.to_ascii_lowercase().starts_with("sha256:") {
        return Some("this is the hash of a CA, and not a token");
    }
    if hexadecimal(64) {
        return Some("this is a hash or a certificate key, and not a token");
    }
    if hexadecimal(32) || text.contains("::server:") || text.contains("::node:") {
        return Some("this is a token of k3s, RKE2 or MicroK8s, and firstboot joins clusters of kubeadm");
    }
    is_address().then_some("this is the address of a server, and not a token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_tools() {
        let beneath =
            "takes kubeadm's: give what kubeadm token create --print-join-command prints on the control plane";
        let other = "joins clusters of kubeadm: give what kubeadm token create --print-join-command prints there";
        for (text, name, more) in [
            ("yurtadm join 192.0.2.1:6443 --token=a", "yurtadm (OpenYurt)", beneath),
            ("sudo ./keadm join --cloudcore-ipport=192.0.2.1:10000", "keadm (KubeEdge)", beneath),
            ("./kk add nodes -f config.yaml", "KubeKey", beneath),
            ("curl -sfL https://get.k3s.io | K3S_URL=https://a:6443 K3S_TOKEN=b sh -", "k3s", other),
            ("k3s agent --server https://a:6443 --token b", "k3s", other),
            ("curl -sfL https://get.rke2.io | INSTALL_RKE2_TYPE=\"agent\" sh -", "RKE2", other),
            ("curl -sSf https://get.k0s.sh | sudo sh", "k0s", other),
            ("sudo k0s install worker --token-file /path", "k0s", other),
            ("microk8s join 10.0.1.1:25000/a/b --worker", "MicroK8s", other),
            ("$ sudo k8s join-cluster a", "Canonical Kubernetes", other),
            ("docker swarm join --token a b:2377", "Docker Swarm", other),
            ("/etc/eks/bootstrap.sh my-cluster", "EKS", other),
        ] {
            assert_eq!(line(text), Some(format!("this is a line of {name}, and firstboot {more}")), "{text}");
        }
        for text in ["kubeadm init", "kubeadm token create --print-join-command"] {
            let want = "this command makes a cluster or a token; give the line that kubeadm token create \
                        --print-join-command prints";
            assert_eq!(line(text).as_deref(), Some(want));
        }
        for text in ["", "kubeadm token list", "kubeadm join a:1", "my-rke2-host", "join", "yurtadm", "k3s"] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn tokens_of_other_tools() {
        let hex = "0123456789abcdef";
        for (text, part) in [
            (format!("K10{hex}::server:{hex}"), "k3s or RKE2"),
            (format!("K10{hex}::abcdef.{hex}"), "k3s or RKE2"),
            ("H4sIAAAAAAAC/2xVXY".to_owned(), "k0s"),
            ("SWMTKN-1-abc".to_owned(), "Docker Swarm"),
            (format!("{hex}.eyJhbGciOiJIUzI1NiJ9.eyJ9.aaaa"), "JSON Web Token"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJ9.aa".to_owned(), "JSON Web Token"),
            (format!("sha256:{}", hex.repeat(4)), "the hash of a CA"),
            (hex.repeat(4), "certificate key"),
            (hex.repeat(2), "k3s, RKE2 or MicroK8s"),
            ("10.0.0.1:6443".to_owned(), "address of a server"),
            ("fd00::1".to_owned(), "address of a server"),
        ] {
            assert!(token(&text).is_some_and(|what| what.contains(part)), "{text}");
        }
        for text in ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789ABCDEF", "K10"] {
            assert_eq!(token(text), None, "{text}");
        }
    }
}
