//! Certificates by which a provider signs: who is behind one is for those to say whom the whole web
//! trusts with it, and the list of these is Mozilla's.

use chrono::{DateTime, Utc};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Most certificates of a chain; what comes with more is none.
const CHAIN_MAX: usize = 8;

/// A certificate and those behind it, of which it has been shown that they are for one of some names.
#[derive(Debug, Clone)]
pub struct Certificates {
    chain: Vec<CertificateDer<'static>>,
    names: &'static [&'static str],
    /// Whether the last of them is trusted, as a stand-in's is, and not Mozilla's list.
    own_root: bool,
}

impl Certificates {
    /// Reads certificates in PEM (RFC 7468), the signer's first, which has to be for one of `names`.
    /// `None` when there is none. With `own_root` the last one is taken for a root; that is for
    /// stand-ins, whom nobody knows.
    pub fn read(
        pem: &[u8],
        names: &'static [&'static str],
        own_root: bool,
    ) -> Option<Certificates> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.ok()?;
        let fits = (1..=CHAIN_MAX).contains(&chain.len());
        fits.then_some(Certificates {
            chain,
            names,
            own_root,
        })
    }

    /// Whether the key of the first certificate has signed `message` (RSA, PKCS #1 v1.5, SHA-256), and
    /// is trusted `now`.
    pub fn signed(&self, message: &[u8], signature: &[u8], now: DateTime<Utc>) -> bool {
        let Some((first, behind)) = self.chain.split_first() else {
            return false;
        };
        let Ok(signer) = EndEntityCert::try_from(first) else {
            return false;
        };
        self.is_trusted(&signer, behind, now)
            && signer
                .verify_signature(RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok()
    }

    fn is_trusted(
        &self,
        signer: &EndEntityCert<'_>,
        behind: &[CertificateDer<'_>],
        now: DateTime<Utc>,
    ) -> bool {
        let named = self.names.iter().any(|name| {
            let name = ServerName::try_from(*name);
            name.is_ok_and(|name| signer.verify_is_valid_for_subject_name(&name).is_ok())
        });
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let own: Vec<TrustAnchor<'_>> = behind
            .last()
            .filter(|_| self.own_root)
            .and_then(|root| anchor_from_trusted_cert(root).ok())
            .into_iter()
            .collect();
        let roots = match self.own_root {
            true => own.as_slice(),
            false => webpki_roots::TLS_SERVER_ROOTS,
        };
        named
            && signer
                .verify_for_usage(
                    ALL_VERIFICATION_ALGS,
                    roots,
                    behind,
                    time,
                    KeyUsage::server_auth(),
                    None,
                    None,
                )
                .is_ok()
    }
}
