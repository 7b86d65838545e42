// Package webhook is the HTTPS server that the API server asks about new pods: it reads
// AdmissionReviews (admission.k8s.io/v1), lets package inject decide, and answers with a
// JSON patch, warnings, or a refusal.
//
// It holds no state between reviews and only reads from the cluster, so a review has no side
// effects and dry runs need no special care. What a pod should look like is not decided here.
package webhook
