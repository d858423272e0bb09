//! Names of an archive's members.

/// Takes a name apart and puts it together again without a leading slash, empty components and `.`. Returns `None` if it has `..`
/// or a zero byte.
pub(super) fn normal(name: &[u8]) -> Option<Vec<u8>> {
    resolve(&[], name, false)
}

/// The name of what the link `member` leads to; `None` if that is outside the archive.
pub(super) fn link_target(member: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let folder = member
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(&[][..], |slash| &member[..slash]);
    resolve(folder, target, true)
}

fn resolve(folder: &[u8], name: &[u8], up: bool) -> Option<Vec<u8>> {
    if name.contains(&0) {
        return None;
    }
    let is_slash = |byte: &u8| *byte == b'/';
    let mut components: Vec<&[u8]> = folder
        .split(is_slash)
        .filter(|part| !part.is_empty())
        .collect();
    for component in name.split(is_slash) {
        match component {
            b"" | b"." => {}
            b".." if up => drop(components.pop()?),
            b".." => return None,
            component => components.push(component),
        }
    }
    Some(components.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized() {
        assert_eq!(normal(b"./a//b/").unwrap(), b"a/b");
        assert_eq!(normal(b"/a").unwrap(), b"a");
        assert_eq!(normal(b"a/../b"), None);
        assert_eq!(normal(b"a\0"), None);
        assert_eq!(
            link_target(b"a/layer.tar", b"../b/layer.tar").unwrap(),
            b"b/layer.tar"
        );
        assert_eq!(link_target(b"a", b"b").unwrap(), b"b");
        assert_eq!(link_target(b"a/b", b"../../c"), None);
        assert_eq!(link_target(b"a/b", b"/c"), None);
    }
}
