// Package certificate keeps the serving certificate of the webhook, and the trust of the
// API servers in it. There are two ways: [Files] follows two files that somebody else
// renews, such as cert-manager; [Keeper] is its own authority.
//
// All replicas keep the same Secret, and none is their leader. Each of them looks at it
// every few seconds and decides by its contents and the time alone what is next (see
// [Policy.Next]); the API server lets one of several writers win, and the others go by what it has
// written. Nothing is renewed in a hurry, so that at any time every certificate that a replica may
// still serve is trusted:
//
//	            Secret                     caBundle     served
//	start       CA A, certificate of A     A            A
//	introduce   CA A and B, still of A     A, B         A
//	    ... API servers take notice of the bundle ...
//	switch      CA A and B, one of B       A, B         A or B
//	    ... replicas take notice of the certificate ...
//	retire      CA B, certificate of B     B            B
//
// A certificate is renewed under its CA in one step.
package certificate
