package proxy

import (
	"fmt"
	"log"
	"strings"

	"go.uber.org/zap"
)

// engineLog carries goproxy's messages to zap. It prints to stderr by itself otherwise, warnings even when it is not
// verbose. They tell of clients that went away and tunnels that broke, so they are for debugging.
type engineLog struct{ logger *zap.Logger }

func (l engineLog) Printf(format string, values ...any) {
	if l.logger.Core().Enabled(zap.DebugLevel) {
		l.logger.Debug(strings.TrimSpace(fmt.Sprintf(format, values...)))
	}
}

// debugLog is for http.Server and ReverseProxy, which tell of failed handshakes and of connections that broke.
func debugLog(logger *zap.Logger) *log.Logger {
	std, err := zap.NewStdLogAt(logger, zap.DebugLevel)
	if err != nil {
		// NewStdLogAt fails for unknown levels only.
		panic("proxy: " + err.Error())
	}
	return std
}
