package main

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/proxy"
	"rockpool.dev/sidecar/tally"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3". Empty = the module's.
var version string

// programVersion is the version of the program.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); version == "" && ok {
		return info.Main.Version
	}
	return version
}

// describe returns the version of the program and of Go, and the platform.
func describe() string {
	return programVersion() + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}

// newLogger returns the logger, and its level, which can change at run time.
func newLogger(cfg config.Log) (*zap.Logger, zap.AtomicLevel, error) {
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(cfg.Level)
	c.Encoding = cfg.Format
	c.Sampling = nil // log every line
	c.DisableCaller, c.DisableStacktrace = true, true
	c.EncoderConfig.TimeKey = "time"
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	c.EncoderConfig.EncodeDuration = zapcore.MillisDurationEncoder
	log, err := c.Build()
	return log, c.Level, err
}

// accessLog logs requests, without headers. Requests without an answer and those answered 5xx are
// logged at level info: of those that are alike the first, and then how many there were. All
// requests are logged at debug, because an application that polls would wear out the node's flash.
func accessLog(log *zap.Logger, failed *tally.Log) func(proxy.Exchange) {
	return func(x proxy.Exchange) {
		if x.Err != nil || x.Status >= http.StatusInternalServerError {
			failed.Write(accessLine(&x))
			return
		}
		failed.Due()
		if entry := log.Check(zapcore.DebugLevel, accessMessage); entry != nil {
			line := accessLine(&x)
			entry.Write(append(line.Kind, line.Fields...)...)
		}
	}
}

const accessMessage = "request"

// accessLine is the line for one request. Failed requests are alike if they ask for the same
// resource and are answered alike.
func accessLine(x *proxy.Exchange) tally.Line {
	trace := dispatch.TraceOf(x.Context)
	link := "online"
	if trace.Offline {
		link = "offline"
	}
	verb := trace.Info.Verb
	if verb == "" { // rejected, or upgraded
		verb = strings.ToLower(x.Method)
	}
	line := tally.Line{Level: zapcore.InfoLevel, Message: accessMessage, Err: x.Err, Kind: []zap.Field{zap.String("verb", verb)}}
	if trace.Info.IsResource {
		line.Kind = append(line.Kind, zap.String("resource", resource(trace.Info)))
		line.Fields = append(line.Fields, zap.String("namespace", trace.Info.Namespace), zap.String("name", trace.Info.Name))
	} else {
		line.Kind = append(line.Kind, zap.String("method", x.Method), zap.String("path", x.Path))
	}
	line.Kind = append(line.Kind, zap.Int("status", x.Status), zap.String("link", link))
	line.Fields = append(line.Fields, zap.Stringer("id", x.ID), zap.String("userAgent", x.UserAgent), zap.Duration("ms", x.Duration),
		zap.Int64("bytes", x.Bytes), zap.String("protocol", x.Proto))
	if x.AuditID != "" && x.AuditID != x.ID.String() {
		line.Fields = append(line.Fields, zap.String("auditID", x.AuditID))
	}
	if x.Upgrade != "" {
		line.Fields = append(line.Fields, zap.String("upgrade", x.Upgrade))
	}
	return line
}

// resource is group/version/resource/subresource, or the path of another request.
func resource(info *request.Info) string {
	if !info.IsResource {
		return info.Path
	}
	s := info.Version + "/" + info.Resource
	if info.Group != "" {
		s = info.Group + "/" + s
	}
	if info.Subresource != "" {
		s += "/" + info.Subresource
	}
	return s
}
