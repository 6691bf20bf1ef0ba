/**
 * A certificate for localhost that secures nothing, valid for a hundred years: openssl req -x509 -newkey ec
 * -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=localhost -addext subjectAltName=DNS:localhost
 */
export const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgrdUYjG7irAHflZQb
nT6rwYFmuP5VxRZrqHMLYkiPnVahRANCAASY8ldMSXLTqpjq6F3KFat35i7frq0k
AhX4rGviGGj7YZ6+slPz8xhCXTEU53S8oYC3DsFHEpiQdIvR/sUUC7Fy
-----END PRIVATE KEY-----
`;

export const certificate = `-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIUUyroc0uumeVBHz2ZpUu7HMQABWkwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTA0MDc0MloYDzIxMjYxMDI4
MDQwNzQyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASY8ldMSXLTqpjq6F3KFat35i7frq0kAhX4rGviGGj7YZ6+slPz8xhC
XTEU53S8oYC3DsFHEpiQdIvR/sUUC7Fyo2kwZzAdBgNVHQ4EFgQUiF+tslpjmgzn
lpo/kMgZbP4T+6owHwYDVR0jBBgwFoAUiF+tslpjmgznlpo/kMgZbP4T+6owDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIgOLftsDtCa414KQDAytS7xqj0OW7bd01TxB/Q4/cz71ICIQDIbkjsTCbR
JKG/RpWyATqcZXrUvTVjRGhUNmWe/fLtXw==
-----END CERTIFICATE-----
`;
