//! Principal components (a stand-in until the branch is merged).
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalComponents {
    pub features: Vec<(String, usize)>,
}

impl PrincipalComponents {
    pub(super) fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}
