package apikeyd

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Rules by method: "/package.Service/Method", "/package.Service/*" or "*"; the most specific applies. Calls of a method
// without a rule are denied.
type Rules map[string]Rule

func (rules Rules) mustHold() Rules {
	held := Rules{}
	for method, rule := range rules {
		if method != "*" && strings.Count(method, "/") != 2 {
			panic("apikeyd: Rules are for /package.Service/Method, /package.Service/* or *, not for " + strconv.Quote(method))
		}
		held[method] = rule.mustHold()
	}
	return held
}

func (rules Rules) of(method string) (Rule, bool) {
	for _, name := range []string{method, method[:strings.LastIndexByte(method, '/')+1] + "*", "*"} {
		if rule, ok := rules[name]; ok {
			return rule, true
		}
	}
	return Rule{}, false
}

// UnaryServerInterceptor calls the handler only when the key of the caller satisfies the rule of the method. It panics
// when a rule is invalid.
func (g *Guard) UnaryServerInterceptor(rules Rules) grpc.UnaryServerInterceptor {
	rules = rules.mustHold()
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := g.admitCall(ctx, rules, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}

// StreamServerInterceptor is UnaryServerInterceptor for streams. The key is validated when the stream begins.
func (g *Guard) StreamServerInterceptor(rules Rules) grpc.StreamServerInterceptor {
	rules = rules.mustHold()
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := g.admitCall(stream.Context(), rules, info.FullMethod)
		if err != nil {
			return err
		}
		return next(service, admittedStream{stream, ctx})
	}
}

type admittedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s admittedStream) Context() context.Context { return s.ctx }

func (g *Guard) admitCall(ctx context.Context, rules Rules, method string) (context.Context, error) {
	rule, ok := rules.of(method)
	if !ok {
		none := &NoDecision{Misconfigured: true, Code: codes.Internal, Reason: "NO_RULE"}
		g.observe(Verdict{}, none, 0, time.Now())
		return nil, replyToNone(none).grpcStatus().Err()
	}
	if rule.Open {
		return ctx, nil
	}
	sent, _ := metadata.FromIncomingContext(ctx)
	address := ""
	if from, ok := peer.FromContext(ctx); ok {
		address = from.Addr.String()
	}
	verdict, said := g.admit(ctx, rule, sent.Get, address)
	limits := metadata.MD{}
	if said.limits != "" {
		limits = metadata.Pairs("ratelimit-policy", said.policy, "ratelimit", said.limits)
	}
	if said.status == 0 {
		// Fails only without a call, as in a test of the handler alone.
		_ = grpc.SetHeader(ctx, limits)
		return context.WithValue(ctx, verdictKey{}, verdict), nil
	}
	_ = grpc.SetTrailer(ctx, limits)
	return nil, said.grpcStatus().Err()
}

func (r reply) grpcStatus() *status.Status {
	said := status.New(r.code, r.word)
	if r.retryAfter == 0 {
		return said
	}
	wait := durationpb.New(time.Duration(r.retryAfter) * time.Second)
	if detailed, err := said.WithDetails(&errdetails.RetryInfo{RetryDelay: wait}); err == nil {
		return detailed
	}
	return said
}
