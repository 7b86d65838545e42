package proxy

import (
	"fmt"
	"log"
	"strings"

	"go.uber.org/zap"
)

// engineLog sends goproxy's messages to zap at debug level: they report clients that disconnected
// and tunnels that broke. Without it goproxy prints to stderr, warnings even when it is not
// verbose.
type engineLog struct{ logger *zap.Logger }

func (l engineLog) Printf(format string, values ...any) {
	if l.logger.Core().Enabled(zap.DebugLevel) {
		l.logger.Debug(strings.TrimSpace(fmt.Sprintf(format, values...)))
	}
}

// debugLog returns a logger for http.Server and ReverseProxy, which report failed handshakes and
// broken connections.
func debugLog(logger *zap.Logger) *log.Logger {
	std, err := zap.NewStdLogAt(logger, zap.DebugLevel)
	if err != nil {
		// NewStdLogAt fails for unknown levels only.
		panic("proxy: " + err.Error())
	}
	return std
}
