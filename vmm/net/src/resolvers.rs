//! [`Resolvers`]: the host's resolvers, as resolv.conf(5) names them.

use std::{
    collections::VecDeque,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::PathBuf,
    time::SystemTime,
};

use crate::addresses::DNS_PORT;

/// The number of resolvers that are asked (resolv.conf(5), nameserver).
const MAX_SERVERS: usize = 3;

/// The number of questions that are remembered.
const MAX_QUESTIONS: usize = 64;

/// The host's resolvers. The guest knows one address; a question that it repeats goes to the next resolver.
pub(crate) struct Resolvers {
    path: PathBuf,
    /// When the file was changed that `servers` come from.
    changed: Option<SystemTime>,
    servers: Vec<SocketAddr>,
    /// The latest questions, by who asked and the identifier in the message, with the number of times that they came.
    questions: VecDeque<((SocketAddr, u16), usize)>,
}

impl Resolvers {
    /// Reads the file, also because later a sandbox may keep names of interfaces from being looked up, or new files from being read.
    pub(crate) fn new(path: PathBuf) -> Self {
        let mut resolvers = Self {
            path,
            changed: None,
            servers: parse(""),
            questions: VecDeque::new(),
        };
        resolvers.refresh();
        resolvers
    }

    /// The first resolver.
    pub(crate) fn first(&mut self) -> SocketAddr {
        self.refresh();
        self.servers[0]
    }

    /// The resolver for a question in a datagram of a guest's.
    pub(crate) fn next(&mut self, guest: SocketAddr, message: &[u8]) -> SocketAddr {
        self.refresh();
        // The identifier comes first (RFC 1035, 4.1.1 Header section format).
        let Some(&[high, low]) = message.first_chunk() else {
            return self.servers[0];
        };
        let question = (guest, u16::from_be_bytes([high, low]));
        let known = self
            .questions
            .iter_mut()
            .find(|(known, _)| *known == question);
        let times = match known {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                self.questions.truncate(MAX_QUESTIONS - 1);
                self.questions.push_front((question, 0));
                0
            }
        };
        self.servers[times % self.servers.len()]
    }

    fn refresh(&mut self) {
        let changed = fs::metadata(&self.path)
            .and_then(|metadata| metadata.modified())
            .ok();
        if changed.is_none() || changed == self.changed {
            return;
        }
        if let Ok(text) = fs::read(&self.path) {
            self.changed = changed;
            self.servers = parse(&String::from_utf8_lossy(&text));
        }
    }
}

/// The resolvers that a resolv.conf names; where it names none, the host itself (resolv.conf(5), nameserver).
fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver"))
                .then(|| words.next())
                .flatten()
        })
        .filter_map(parse_server)
        .take(MAX_SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
    }
    servers
}

/// Reads an address. One of IPv6 may have a scope, as in `fe80::1%eth0`; `[address]:port` names another port, as in OpenBSD.
fn parse_server(word: &str) -> Option<SocketAddr> {
    if let Some((address, port)) = word
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    {
        let address: IpAddr = address.parse().ok()?;
        return Some(SocketAddr::new(address, port.parse().ok()?));
    }
    if let Some((address, scope)) = word.split_once('%') {
        let scope = match scope.parse() {
            Ok(number) => number,
            Err(_) => index_of(scope)?,
        };
        return Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope).into());
    }
    Some(SocketAddr::new(word.parse().ok()?, DNS_PORT))
}

/// The number of the network interface called `name`. libc would open a socket to ask, which a sandbox may forbid.
fn index_of(name: &str) -> Option<u32> {
    let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    let file = is_name.then(|| format!("/sys/class/net/{name}/ifindex"))?;
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        parse(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn resolvers_are_read_as_resolv_conf_says() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 10.0.0.1\nnameserver\n nameserver fd00::1\n\
            nameservers 2.2.2.2\nnameserver nonsense\nnameserver [127.0.0.1]:5353\nnameserver 9.9.9.9\noptions rotate\n";
        assert_eq!(
            servers(text),
            ["10.0.0.1:53", "[fd00::1]:53", "127.0.0.1:5353"]
        );
        assert_eq!(servers("nameserver fe80::1%7"), ["[fe80::1%7]:53"]);
        assert_eq!(servers("nameserver fe80::1%lo"), ["[fe80::1%1]:53"]);
        assert_eq!(servers("options rotate\n"), ["127.0.0.1:53"]);
        assert_eq!(servers("nameserver [1.1.1.1]:x"), ["127.0.0.1:53"]);
    }

    #[test]
    fn repeated_questions_go_to_the_next_resolver() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 1.1.1.1\nnameserver 2.2.2.2\n").unwrap();
        let mut resolvers = Resolvers::new(file.path().into());
        let guest = "10.0.2.15:4000".parse().unwrap();
        let mut ask = |message: &[u8]| resolvers.next(guest, message).ip().to_string();
        assert_eq!(ask(&[0, 1, 9]), "1.1.1.1");
        assert_eq!(ask(&[0, 2, 9]), "1.1.1.1");
        assert_eq!(ask(&[0, 1, 9]), "2.2.2.2");
        assert_eq!(ask(&[0, 1, 9]), "1.1.1.1");
        assert_eq!(ask(&[0]), "1.1.1.1");
        for id in 0..1000_u16 {
            ask(&id.to_be_bytes());
        }
        assert!(resolvers.questions.len() <= MAX_QUESTIONS);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 1.1.1.1\n").unwrap();
        let mut resolvers = Resolvers::new(file.path().into());
        assert_eq!(resolvers.first().to_string(), "1.1.1.1:53");
        fs::write(file.path(), "nameserver 2.2.2.2\n").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        file.as_file().set_modified(later).unwrap();
        assert_eq!(resolvers.first().to_string(), "2.2.2.2:53");
        fs::remove_file(file.path()).unwrap();
        assert_eq!(resolvers.first().to_string(), "2.2.2.2:53");
    }
}
