// Package webhook is the HTTPS server for the API server's reviews of new pods. It reads
// AdmissionReviews (admission.k8s.io/v1), lets package inject decide, and answers with a JSON
// patch, warnings, or a refusal.
//
// It holds no state between reviews and only reads from the cluster. So a review has no side
// effects, except that Options.Injected is called, which dry runs skip.
package webhook
