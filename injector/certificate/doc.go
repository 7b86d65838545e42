// Package certificate provides the serving certificate of the webhook, and makes the API
// servers trust it. There are two ways: [Files] follows two files that another program
// renews, such as cert-manager; [Rotator] is its own authority.
//
// All replicas manage the same Secret, without a leader. Each reads it every few seconds, and
// decides on the next step from its contents and the time alone (see [Policy.Next]). If
// several replicas write, the API server accepts one write, and the others use its result. The
// steps leave enough time in between, so that API servers always trust every certificate that
// a replica may still serve:
//
//	            Secret                          caBundle   served
//	start       CA A, certificate of A          A          A
//	introduce   CA A and B, certificate of A    A, B       A
//	    ... API servers notice the bundle ...
//	switch      CA A and B, certificate of B    A, B       A or B
//	    ... replicas notice the certificate ...
//	retire      CA B, certificate of B          B          B
//
// Renewing a certificate under the same CA takes one step.
package certificate
