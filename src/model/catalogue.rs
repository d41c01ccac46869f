//! Owns the catalogue's types: services, models, and who may be served.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::input::{Place, Text};
use crate::metadata::{ImageRef, Ports};

use super::helper::Helper;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Text);

        impl $name {
            /// A name: 1 to 64 of `a-z 0-9 - _ .`, starting with a letter or digit. `None` for anything else.
            pub fn new(raw: &str) -> Option<Self> {
                let is_name = (1..=64).contains(&raw.len())
                    && raw.bytes().all(|b| {
                        b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
                    })
                    && raw.as_bytes()[0].is_ascii_alphanumeric();
                is_name.then(|| Self(Text::new(raw)))
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
    };
}

name_type!(
    /// The name of a wire protocol an application offers: `postgresql`, `http`.
    ServiceName
);
name_type!(
    /// The name of a model: `postgres`, `nginx`.
    ModelName
);
name_type!(
    /// A kind of application: `database`, `application`, `proxy`.
    Category
);

/// A wire protocol with its usual ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Usual ports; empty for a protocol without any (`metrics`), whose providers each say their own.
    pub ports: BTreeSet<Ports>,
    /// What follows its connections to the data connections they agree on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<Helper>,
    /// Where it is declared.
    pub place: Place,
}

/// Who is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Every related workload (`any`; also when `to` is not written).
    Any,
    /// Workloads of one category (`category:application`).
    Category(Category),
    /// Workloads of one model (`model:pgadmin`).
    Model(ModelName),
}

/// A service a model provides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provided {
    /// The service; `exposed` stands for the ports the image or container itself declares.
    pub service: ServiceName,
    /// The ports it is provided on, where those are not the service's usual ones; empty means the usual ones.
    /// [`Catalogue::ports_of`] puts all of this together.
    pub ports: BTreeSet<Ports>,
    /// Who is served; never empty.
    pub to: BTreeSet<Audience>,
    /// Where this is written.
    pub place: Place,
}

/// What an application uses beyond the services of related workloads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Egress {
    /// Where to: the internet, or everywhere.
    pub to: EgressTarget,
    /// The ports; never empty.
    pub ports: BTreeSet<Ports>,
    /// Where this is written.
    pub place: Place,
}

/// Where other egress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressTarget {
    /// Globally routed addresses only.
    Internet,
    /// Any address.
    World,
}

/// What an application is known to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Its name.
    pub name: ModelName,
    /// The application's own name, for people.
    pub title: Text,
    /// Its category.
    pub category: Category,
    /// Repositories it is shipped as (`postgres`, `bitnami/postgresql`), with the registry they are at home in
    /// when that is not Docker Hub (`quay.io/keycloak/keycloak`); never with tag or digest.
    pub images: BTreeSet<ImageRef>,
    /// Last path elements that mean this application in whatever registry and path (`mysql`, but never `app`).
    pub distinctive: BTreeSet<String>,
    /// Names of the programs it runs, as entrypoint or command (`postgres`, `node`).
    pub commands: BTreeSet<String>,
    /// Environment variable names that tell it (`POSTGRES_PASSWORD`).
    pub env: BTreeSet<String>,
    /// What it provides, in the file's order.
    pub provides: Vec<Provided>,
    /// Services it uses from related workloads.
    pub uses: BTreeSet<ServiceName>,
    /// Other egress.
    pub egress: Vec<Egress>,
    /// Whether other images are built on it (`node`, `python`): what is built on it may be something more specific,
    /// so it is the answer only when nothing more specific is.
    pub base: bool,
    /// Whether it forwards packets for others (VPN gateways).
    pub routes: bool,
    /// Where this knowledge comes from (a URL).
    pub source: Text,
    /// Where the model starts in its file.
    pub place: Place,
}

/// All services and models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Catalogue {
    /// Services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Models by name.
    pub models: BTreeMap<ModelName, Model>,
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Category(category) => write!(f, "category:{category}"),
            Self::Model(model) => write!(f, "model:{model}"),
        }
    }
}

impl Provided {
    /// The service that stands for whatever ports the image or container declares.
    pub const EXPOSED: &'static str = "exposed";
}
