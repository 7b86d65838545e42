package dispatch

import (
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// unavailable is the answer while the link is down and the cache does not help.
// There is no Retry-After: clients would wait inside the call, but nobody knows
// when the link will be back.
func unavailable(detail string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     http.StatusServiceUnavailable,
		Reason:   metav1.StatusReasonServiceUnavailable,
		Message:  "rockpool: the link to the API server is down: " + detail,
	}}
}

// ambiguous is the answer to a write during which the link broke.
func ambiguous() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     http.StatusGatewayTimeout,
		Reason:   metav1.StatusReasonTimeout,
		Message:  "rockpool: the link to the API server broke during this request; it may have been carried out or not",
	}}
}

// unauthorized is the answer to a caller who cannot be identified offline.
func unauthorized(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     http.StatusUnauthorized,
		Reason:   metav1.StatusReasonUnauthorized,
		Message:  "rockpool: the link to the API server is down and the caller cannot be identified without it: " + err.Error(),
	}}
}

func isStatus(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}
