package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// statusOf turns an error of the Transport into the Status for the client.
func statusOf(err error) metav1.Status {
	var withStatus interface{ Status() metav1.Status }
	if errors.As(err, &withStatus) {
		if status := withStatus.Status(); status.Code >= 400 && status.Code < 600 {
			return status
		}
	}
	var network net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout() {
		return failure(http.StatusGatewayTimeout, metav1.StatusReasonTimeout,
			"the API server did not answer in time: "+err.Error())
	}
	// client-go gives a 502 without a Status the reason StatusReasonInternalError too.
	return failure(http.StatusBadGateway, metav1.StatusReasonInternalError,
		"the API server could not be reached: "+err.Error())
}

// failure returns a Status that the sidecar itself sends.
func failure(code int32, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
}

// encode fills in the fields that every Status on the wire has, and returns its JSON.
func encode(status metav1.Status) []byte {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if status.Status == "" {
		status.Status = metav1.StatusFailure
	}
	data, err := json.Marshal(status)
	if err != nil {
		// Every field of a Status can be marshalled.
		panic("proxy: marshal status: " + err.Error())
	}
	return data
}

// header returns the header of a response with the Status. Retry-After repeats RetryAfterSeconds of
// the Status and is absent without it: client-go retries by itself when it sees the field. Audit-Id
// has the id by which a person finds the request in the log.
func header(status metav1.Status, id string, length int) http.Header {
	h := http.Header{
		"Content-Type":   {"application/json"},
		"Content-Length": {strconv.Itoa(length)},
		"Cache-Control":  {"no-cache, private"},
	}
	if id != "" {
		h.Set(auditID, id)
	}
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	return h
}

// statusResponse returns the Status as a response of the Transport.
func statusResponse(r *http.Request, status metav1.Status, id string, pretty bool) *http.Response {
	data := encode(status)
	if pretty {
		var indented bytes.Buffer
		_ = json.Indent(&indented, data, "", "  ") // it is JSON
		data = indented.Bytes()
	}
	response := &http.Response{
		StatusCode:    int(status.Code),
		Status:        strconv.Itoa(int(status.Code)) + " " + http.StatusText(int(status.Code)),
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header(status, id, len(data)),
		ContentLength: int64(len(data)),
		Body:          io.NopCloser(bytes.NewReader(data)),
		Request:       r,
	}
	return response
}

// writeStatus answers a request that never reaches the Transport.
func writeStatus(w http.ResponseWriter, status metav1.Status, id string) {
	data := encode(status)
	for name, values := range header(status, id, len(data)) {
		w.Header()[name] = values
	}
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(data) // the client may have disconnected
}
