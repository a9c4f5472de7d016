//! What depmod wrote about a kernel's modules, and the way from a request to files. Pure: text in, file names out.

/// The text files of one kernel release.
pub struct Catalogue {
    /// `kernel/a.ko: kernel/b.ko kernel/c.ko`: what needs what; the last one named is needed by those before it.
    pub dependencies: String,
    /// `alias PATTERN MODULE`.
    pub aliases: String,
    /// `kernel/a.ko`: part of the kernel itself.
    pub builtin: String,
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan<'a> {
    /// Nothing answers to this name.
    Unknown,
    /// It is part of the kernel.
    Builtin,
    /// Files below the release's directory, in the order to load them.
    Load(Vec<&'a str>),
}

impl Catalogue {
    /// A module's own name goes before aliases. Of several modules with a fitting alias, all are loaded, as modprobe does.
    pub fn plan(&self, request: &str) -> Plan<'_> {
        let request = normal(request);
        if self.builtin.lines().any(|file| module_of(file) == request) {
            return Plan::Builtin;
        }
        if let Some(files) = self.files_of(&request) {
            return Plan::Load(files);
        }
        let mut all = Vec::new();
        for line in self.aliases.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) else { continue };
            if matches(normal(pattern).as_bytes(), request.as_bytes()) {
                let files = self.files_of(&normal(module)).unwrap_or_default();
                all.extend(files.into_iter().filter(|file| !all.contains(file)).collect::<Vec<_>>());
            }
        }
        if all.is_empty() { Plan::Unknown } else { Plan::Load(all) }
    }

    fn files_of(&self, module: &str) -> Option<Vec<&str>> {
        let (file, needed) =
            self.dependencies.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| module_of(file) == module)?;
        let mut files: Vec<&str> = needed.split_ascii_whitespace().rev().collect();
        files.push(file);
        Some(files)
    }
}

/// `kernel/net/xfrm-user.ko` is the module `xfrm_user`.
fn module_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    normal(name.strip_suffix(".ko").unwrap_or(name))
}

/// In names, `-` and `_` are the same; inside brackets of a pattern `-` makes a range.
fn normal(name: &str) -> String {
    let mut in_brackets = false;
    let one = |letter| {
        match letter {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ => {}
        }
        if letter == '-' && !in_brackets { '_' } else { letter }
    };
    name.chars().map(one).collect()
}

/// Shell wildcards: `*`, `?`, `[a-z]`, `[!a]`. Iterative: a `*` is retried one letter further, so the cost is the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, read));
            at += 1;
        } else if let Some(length) = matches_one(&pattern[at..], text[read]) {
            at += length;
            read += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (at, read) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// How much of the pattern stands for this byte; nothing when it does not fit.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().skip(2).position(|&letter| letter == b']')? + 2;
            let inside = &pattern[1..end];
            let (negated, set) = match inside.first() {
                Some(b'!' | b'^') => (true, &inside[1..]),
                _ => (false, inside),
            };
            (in_set(set, byte) != negated).then_some(end + 1)
        }
        letter => (letter == byte).then_some(1),
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let mut rest = set;
    while let [first, after @ ..] = rest {
        if let [b'-', last, tail @ ..] = after {
            if (*first..=*last).contains(&byte) {
                return true;
            }
            rest = tail;
        } else {
            if *first == byte {
                return true;
            }
            rest = after;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Catalogue, Plan, matches, normal};

    fn catalogue() -> Catalogue {
        Catalogue {
            dependencies: "\
kernel/drivers/net/wireguard/wireguard.ko: kernel/net/ipv4/udp_tunnel.ko kernel/lib/crypto/libchacha20poly1305.ko kernel/lib/crypto/libpoly1305.ko
kernel/net/ipv4/udp_tunnel.ko:
kernel/fs/xfs/xfs.ko:
kernel/drivers/block/virtio-thing.ko: kernel/net/ipv4/udp_tunnel.ko
kernel/net/a_one.ko: kernel/net/ipv4/udp_tunnel.ko
kernel/net/a_two.ko: kernel/net/ipv4/udp_tunnel.ko
"
            .into(),
            aliases: "\
# Aliases extracted from modules themselves.
alias rtnl-link-wireguard wireguard
alias fs-xfs xfs
alias pci:v00001AF4d0000104[0-5]sv*sd*bc*sc*i* virtio_thing
alias both-* a_one
alias both-?? a_two
alias gone nowhere
broken
"
            .into(),
            builtin: "kernel/net/netfilter/x_tables.ko\nkernel/fs/ext4/ext4.ko\n".into(),
        }
    }

    #[test]
    fn loads_what_is_needed_first() {
        let want = [
            "kernel/lib/crypto/libpoly1305.ko",
            "kernel/lib/crypto/libchacha20poly1305.ko",
            "kernel/net/ipv4/udp_tunnel.ko",
            "kernel/drivers/net/wireguard/wireguard.ko",
        ];
        assert_eq!(catalogue().plan("wireguard"), Plan::Load(want.to_vec()));
        assert_eq!(catalogue().plan("rtnl-link-wireguard"), Plan::Load(want.to_vec()));
    }

    #[test]
    fn dashes_are_underscores() {
        let want = Plan::Load(vec!["kernel/net/ipv4/udp_tunnel.ko", "kernel/drivers/block/virtio-thing.ko"]);
        assert_eq!(catalogue().plan("virtio_thing"), want);
        assert_eq!(catalogue().plan("virtio-thing"), want);
        assert_eq!(catalogue().plan("fs_xfs"), Plan::Load(vec!["kernel/fs/xfs/xfs.ko"]));
        assert_eq!(normal("a-b[0-9]c-d"), "a_b[0-9]c_d");
    }

    #[test]
    fn aliases_are_patterns() {
        assert!(matches!(catalogue().plan("pci:v00001AF4d00001043sv1sd2bc3sc4i5"), Plan::Load(files) if files.len() == 2));
        assert_eq!(catalogue().plan("pci:v00001AF4d00001047sv1sd2bc3sc4i5"), Plan::Unknown);
        let both = ["kernel/net/ipv4/udp_tunnel.ko", "kernel/net/a_one.ko", "kernel/net/a_two.ko"];
        assert_eq!(catalogue().plan("both-xy"), Plan::Load(both.to_vec()));
        assert_eq!(catalogue().plan("both-xyz"), Plan::Load(both[..2].to_vec()));
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        assert_eq!(catalogue().plan("x_tables"), Plan::Builtin);
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        for request in ["nothing", "gone", "", "wireguar", "kernel/fs/xfs/xfs.ko"] {
            assert_eq!(catalogue().plan(request), Plan::Unknown, "{request}");
        }
    }

    #[test]
    fn wildcards() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("a*b*c", "aXbYbZc"), ("[!a]x", "bx"), ("[]]", "]"), ("a[b-d]", "ac"), ("*.ko", ".ko")]
        {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abbd"), ("?", ""), ("[!a]x", "ax"), ("a[b-d]", "ae"), ("[ab", "a"), ("", "a"), ("a", "ab")] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let stars = "*a".repeat(30);
        assert!(!matches(stars.as_bytes(), "a".repeat(29).as_bytes()));
    }
}
