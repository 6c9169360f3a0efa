// SPDX-License-Identifier: Apache-2.0
//! Serde of the seed's values: each is the text that its `parse` reads, checked again when it is read. Secrets are left
//! out: a token is written as a used one, a proxy without its credentials.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::types::{CaPin, Endpoint, JoinToken};
use crate::proxy::{Direct, Proxy};

macro_rules! as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type>::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )+};
}

as_text!(CaPin, Direct, Endpoint, JoinToken, Proxy);
