// Package token answers requests for service-account tokens (TokenRequest, KEP-1205) while the link
// is down: with the last token that the API server has issued to the same caller for the same
// service account, audiences and bound object, for as long as it is valid.
//
// Tokens are in memory only, and end with the process. Nothing here logs them. Which token a caller
// gets is decided by what it asks; no token is ever compared with another.
package token
