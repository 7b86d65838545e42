package main

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/proxy"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3". Empty = the module's.
var version string

// describe returns the version of the program and of Go, and the platform.
func describe() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); v == "" && ok {
		v = info.Main.Version
	}
	return v + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
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

// accessLog writes one line for each request, without headers. Requests without an answer and
// those answered 5xx are logged at level info. All others are logged at debug, because an
// application that polls would wear out the node's flash.
func accessLog(log *zap.Logger) func(proxy.Exchange) {
	return func(x proxy.Exchange) {
		level := zapcore.DebugLevel
		if x.Err != nil || x.Status >= http.StatusInternalServerError {
			level = zapcore.InfoLevel
		}
		line := log.Check(level, "request")
		if line == nil {
			return
		}
		trace := dispatch.TraceOf(x.Context)
		link := "online"
		if trace.Offline {
			link = "offline"
		}
		verb := trace.Info.Verb
		if verb == "" { // rejected, or upgraded
			verb = strings.ToLower(x.Method)
		}
		fields := []zap.Field{zap.String("verb", verb)}
		if trace.Info.IsResource {
			fields = append(fields, zap.String("resource", resource(trace)),
				zap.String("namespace", trace.Info.Namespace), zap.String("name", trace.Info.Name))
		} else {
			fields = append(fields, zap.String("method", x.Method), zap.String("path", x.Path))
		}
		fields = append(fields, zap.String("userAgent", x.UserAgent), zap.Int("status", x.Status), zap.String("link", link),
			zap.Duration("ms", x.Duration), zap.Int64("bytes", x.Bytes), zap.String("protocol", x.Proto))
		if x.Upgrade != "" {
			fields = append(fields, zap.String("upgrade", x.Upgrade))
		}
		if x.Err != nil {
			fields = append(fields, zap.Error(x.Err))
		}
		line.Write(fields...)
	}
}

// resource is group/version/resource/subresource.
func resource(trace dispatch.Trace) string {
	s := trace.Info.Version + "/" + trace.Info.Resource
	if trace.Info.Group != "" {
		s = trace.Info.Group + "/" + s
	}
	if trace.Info.Subresource != "" {
		s += "/" + trace.Info.Subresource
	}
	return s
}
