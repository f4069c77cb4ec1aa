//! The GUIDs that firmware names things by.

use uuid::{Uuid, uuid};

/// Variables of the UEFI specification itself.
pub(crate) const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// The variables `db` and `dbx`.
pub(crate) const IMAGE_SECURITY: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
/// Variables of shim, a loader with keys of its own.
pub(crate) const SHIM: Uuid = uuid!("605dab50-e046-4300-abb6-3dd810dd8b23");

/// Lists of X.509 certificates.
pub(crate) const CERT_X509: Uuid = uuid!("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
/// Lists of SHA-256 digests of programs.
pub(crate) const CERT_SHA256: Uuid = uuid!("c1c41626-504c-4092-aca9-41f936934328");
/// Lists of SHA-256 digests of certificates' signed parts.
pub(crate) const CERT_X509_SHA256: Uuid = uuid!("3bd2a492-96c0-4079-b420-fcf98ef103ed");
/// As before, SHA-384.
pub(crate) const CERT_X509_SHA384: Uuid = uuid!("7076876e-80c2-4ee6-aad2-28b349a6865b");
/// As before, SHA-512.
pub(crate) const CERT_X509_SHA512: Uuid = uuid!("446dbf63-2502-4cda-bcfa-2465d2b0fe9d");
/// Lists of other digests of programs: SHA-1, SHA-224, SHA-384, SHA-512.
pub(crate) const OTHER_IMAGE_DIGESTS: [Uuid; 4] = [
    uuid!("826ca512-cf10-4ac9-b187-be01496631bd"),
    uuid!("0b6e5233-a65c-44c9-9407-d9ab83bfc8bd"),
    uuid!("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"),
    uuid!("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"),
];
