//! Who may log in at this node: whom the chain grants a right in its cluster.

use async_trait::async_trait;
use veil_node_api::{gate::Accounts, sessions::Login, tls::CertificateHash};
use veil_node_chain::{Rights, login_digest, signer_of};
use veil_protocol_spec::Address;

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
        let Login { account, challenge, expires } = login;
        let scope = self.joined()?.scope;
        let digest = login_digest(&scope, &certificate.0, account, challenge, *expires);
        Ok(signer_of(&digest, signature))
    }

    async fn has_rights(&self, account: Address) -> Result<bool, String> {
        let Joined { chain, scope, .. } = self.joined()?;
        let allowance = chain.allowance(scope.cluster, account).await;
        let allowance = allowance.map_err(|error| format!("the chain does not say: {error}"))?;
        Ok(allowance.rights != Rights::NONE)
    }
}
