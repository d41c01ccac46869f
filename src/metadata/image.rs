//! Owns image references and what an image says about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::port::Ports;
use crate::input::Text;

/// An image reference, taken apart as the distribution specification does
/// (`[registry/]repository[:tag][@digest]`; the first element is a registry when it has a `.` or a `:`, or is `localhost`).
///
/// Docker Hub's own `docker.io/library/` is left out, so `nginx` and `docker.io/library/nginx:latest` have one repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// `None` is Docker Hub.
    pub registry: Option<String>,
    /// Path without registry, tag and digest: `nginx`, `bitnami/postgresql`.
    pub repository: String,
    /// Tag, if one is written.
    pub tag: Option<String>,
    /// Digest with its algorithm (`sha256:…`), if one is written.
    pub digest: Option<String>,
}

/// A text that is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an image reference; write it as [registry/]name[:tag][@digest]")]
pub struct ImageRefError(pub Text);

impl ImageRef {
    /// The last element of the repository's path.
    pub fn last_element(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }
}

/// Whether the first element of a path names a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let error = || ImageRefError(text.into());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[last_slash..].split_once(':') {
            Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
            None => (rest, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, others)) if is_registry(first) => (Some(first), others),
            _ => (None, path),
        };
        let is_hub = |name: &&str| matches!(*name, "docker.io" | "index.docker.io");
        let registry = registry.filter(|name| !is_hub(name));
        let repository = match registry {
            // As Docker shortens it: only what is a single element behind it.
            None => match repository.strip_prefix("library/") {
                Some(official) if !official.contains('/') => official,
                _ => repository,
            },
            Some(_) => repository,
        };
        let is_element = |element: &str| {
            !element.is_empty()
                && element.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        };
        let is_word = |word: &str| {
            !word.is_empty()
                && word.len() <= 256
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:+[]".contains(&b))
        };
        let is_valid = repository.len() <= 255
            && repository.split('/').all(is_element)
            && tag.is_none_or(is_word)
            && digest.is_none_or(|digest| digest.contains(':') && is_word(digest))
            && registry.is_none_or(is_word);
        // An image named by its bare id has no repository to tell anything by.
        let is_id = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_valid || is_id || text.starts_with("sha256:") {
            return Err(error());
        }
        Ok(Self {
            registry: registry.map(str::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.repository.split_once('/').map(|(first, _)| first);
        match (&self.registry, first) {
            (Some(registry), _) => write!(f, "{registry}/")?,
            // What would be taken for a registry is none.
            (None, Some(first)) if is_registry(first) => f.write_str("docker.io/")?,
            (None, _) => {}
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is known of a workload's image. Anything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImageFacts {
    /// The reference the container was created with; `None` when it was a bare id or is no valid reference.
    pub reference: Option<ImageRef>,
    /// The image's id (`sha256:…`), if known.
    pub id: Option<Text>,
    /// The image's labels; `None` where only the container's are known.
    pub labels: Option<BTreeMap<Text, Text>>,
    /// Ports the image or the container declares (`EXPOSE`).
    pub exposed: BTreeSet<Ports>,
    /// Entrypoint as it runs.
    pub entrypoint: Vec<Text>,
    /// Command as it runs. Arguments may hold secrets: only the first three words are kept, and of those nothing after a `=`.
    pub cmd: Vec<Text>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let cases = [
            ("nginx", None, "nginx", None, None),
            ("docker.io/library/nginx:1.27", None, "nginx", Some("1.27"), None),
            ("bitnami/postgresql", None, "bitnami/postgresql", None, None),
            (
                "registry:5000/team/mysql:8@sha256:ab",
                Some("registry:5000"),
                "team/mysql",
                Some("8"),
                Some("sha256:ab"),
            ),
            ("localhost/x", Some("localhost"), "x", None, None),
            ("ghcr.io/a/b/c", Some("ghcr.io"), "a/b/c", None, None),
            ("[::1]:5000/app:2", Some("[::1]:5000"), "app", Some("2"), None),
            ("docker.io/library/a/b", None, "library/a/b", None, None),
            ("docker.io/example.org/x", None, "example.org/x", None, None),
        ];
        for (text, registry, repository, tag, digest) in cases {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(image.registry.as_deref(), registry, "{text}");
            assert_eq!(image.repository, repository, "{text}");
            assert_eq!(image.tag.as_deref(), tag, "{text}");
            assert_eq!(image.digest.as_deref(), digest, "{text}");
            assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image, "{text}");
        }
        assert_eq!(
            "registry:5000/team/mysql:8".parse::<ImageRef>().unwrap().last_element(),
            "mysql"
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "/",
            "a//b",
            "UPPER",
            "a b",
            "a\n",
            "a:",
            "a@sha256",
            "sha256:abcd",
            &"a".repeat(64),
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?}");
        }
    }
}
