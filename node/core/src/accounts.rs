//! Who may log in at this node: whom the chain grants a right in its cluster, and the keys to which such an
//! operator has delegated that.

use async_trait::async_trait;
use veil_node_api::{gate::Accounts, sessions::Login, tls::CertificateHash};
use veil_node_chain::{Rights, login_digest, signer_of};
use veil_protocol_spec::{Address, registry::Delegation};

use crate::report::{Joined, Reporter};

/// The accounts of the cluster that this node has joined.
pub(crate) struct ChainAccounts(pub(crate) Reporter);

impl ChainAccounts {
    fn joined(&self) -> Result<Joined, String> {
        self.0
            .joined()
            .ok_or_else(|| "this node has not joined its cluster yet; try again".to_owned())
    }
}

#[async_trait]
impl Accounts for ChainAccounts {
    fn signer(
        &self,
        login: &Login,
        certificate: &CertificateHash,
        signature: &[u8; 65],
    ) -> Result<Option<Address>, String> {
        let Login { account, operator, challenge, expires } = login;
        let scope = self.joined()?.scope;
        let digest = login_digest(&scope, &certificate.0, (account, operator), challenge, *expires);
        Ok(signer_of(&digest, signature))
    }

    async fn has_rights(&self, account: Address) -> Result<bool, String> {
        let Joined { chain, scope, .. } = self.joined()?;
        let allowance = chain.allowance(scope.cluster, account).await;
        let allowance = allowance.map_err(|error| format!("the chain does not say: {error}"))?;
        Ok(allowance.rights != Rights::NONE)
    }

    async fn delegation(&self, operator: Address, key: Address) -> Result<Delegation, String> {
        let Joined { chain, scope, .. } = self.joined()?;
        let delegation = chain.delegation(scope.cluster, operator, key).await;
        delegation.map_err(|error| format!("the chain does not say: {error}"))
    }
}
