// Package apikeyd guards HTTP handlers and gRPC methods by API keys that an apikeyd server decides about:
//
//	guard, err := apikeyd.New(apikeyd.Options{Address: "127.0.0.1:50051", KeyFile: "guard.key"})
//	…
//	http.Handle("/traces", guard.HTTP(apikeyd.Rule{Scope: "traces:read"})(handler))
//
// No decision is a no: whatever goes wrong, the handler is not called. No key is in any error, log or metric.
package apikeyd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

// DefaultDeadline is the longest that a question takes, its retries included.
const DefaultDeadline = 500 * time.Millisecond

const (
	maxCalls   = 3
	firstPause = 50 * time.Millisecond
	// Longer texts are no key; a batch of them would be larger than the server takes.
	maxKeyInBatch = 1024
	// How long a server that says nothing is waited for before the connection counts as lost.
	silence = 2 * time.Second
)

// Options say how a Guard reaches apikeyd.
type Options struct {
	// Address of apikeyd's gRPC port: "host:port" or "http://host:port" without TLS, "https://host:port" with it.
	Address string
	// KeyFile holds the guard's own key, which needs the scope apikeys:validate. It is read again when it changes.
	KeyFile string
	// Deadline of a question with its retries; 0 means DefaultDeadline.
	Deadline time.Duration
	// BatchWindow above 0 joins the questions that come within it (1 ms, say) into one call of at most 100.
	BatchWindow time.Duration
	// TLS for an address with https; nil means the system's roots.
	TLS *tls.Config
	// Observe is called once for each question when it is answered, for metrics. It must not block.
	Observe func(Observation)
	// Logger is told once of each way in which the guard is misconfigured; nil means slog.Default().
	Logger *slog.Logger
	// DialOptions are added to the guard's own, for tracing and the like.
	DialOptions []grpc.DialOption
}

// Observation is what a metric may be told of a question.
type Observation struct {
	// Outcome is a Decision, or NO_KEY, UNAVAILABLE (no decision) or MISCONFIGURED.
	Outcome string
	// Err says why there is no decision.
	Err error
	// Calls to apikeyd that it took.
	Calls int
	// Duration of the question.
	Duration time.Duration
}

// Guard asks apikeyd. It is safe for concurrent use; make one for each server and Close it at the end.
type Guard struct {
	options Options
	key     *keyFile
	conn    *grpc.ClientConn
	apikeyd apikeyv1.ApiKeyAuthClient
	batch   *batcher

	// Faults of the configuration that were logged.
	told sync.Map
}

// New makes a Guard. It reads the key file and does not connect yet.
func New(options Options) (*Guard, error) {
	if options.Deadline < 0 || options.BatchWindow < 0 {
		return nil, errors.New("apikeyd: Deadline and BatchWindow must not be negative")
	}
	if options.Deadline == 0 {
		options.Deadline = DefaultDeadline
	}
	if options.BatchWindow >= options.Deadline {
		return nil, errors.New("apikeyd: BatchWindow must be shorter than Deadline")
	}
	if options.Observe == nil {
		options.Observe = func(Observation) {}
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	target, transport, err := dialling(options)
	if err != nil {
		return nil, err
	}
	key, err := openKeyFile(options.KeyFile)
	if err != nil {
		return nil, err
	}
	reconnecting := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: silence}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{
		transport,
		// Retries are the guard's own: those of gRPC know nothing of RetryInfo.
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnecting, MinConnectTimeout: silence}),
		// Every call would else wait for minutes for a server that vanished without a word.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: silence}),
	}, options.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("apikeyd: Address: %w", err)
	}
	g := &Guard{options: options, key: key, conn: conn, apikeyd: apikeyv1.NewApiKeyAuthClient(conn)}
	if options.BatchWindow > 0 {
		g.batch = &batcher{window: options.BatchWindow, send: g.sendBatch}
	}
	return g, nil
}

func dialling(options Options) (string, grpc.DialOption, error) {
	scheme, host, found := strings.Cut(options.Address, "://")
	switch {
	case !found && scheme != "":
		return scheme, grpc.WithTransportCredentials(insecure.NewCredentials()), nil
	case found && scheme == "http":
		return host, grpc.WithTransportCredentials(insecure.NewCredentials()), nil
	case found && scheme == "https":
		return host, grpc.WithTransportCredentials(credentials.NewTLS(options.TLS)), nil
	}
	return "", nil, errors.New("apikeyd: Address must be host:port, http://host:port or https://host:port")
}

// Close ends the connection. Questions under way get no decision.
func (g *Guard) Close() error { return g.conn.Close() }

// Validate asks about one key. An error means that there is no decision, and is always a *NoDecision: the key must be
// treated as not good. Without an error look at the verdict: a denial is no error.
func (g *Guard) Validate(ctx context.Context, question Question) (Verdict, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, g.options.Deadline)
	defer cancel()
	asked := &pending{request: question.request(), done: make(chan struct{})}
	if g.batch != nil && len(asked.request.Key) <= maxKeyInBatch {
		g.batch.add(asked)
		select {
		case <-asked.done:
		case <-ctx.Done():
			// What is under way in the batch is no longer this question's.
			asked = &pending{err: status.FromContextError(ctx.Err()).Err()}
		}
	} else {
		g.sendOne(ctx, asked)
	}
	verdict, err := asked.verdict()
	if err != nil && ctx.Err() != nil {
		err.cause = ctx.Err()
	}
	g.observe(verdict, err, asked.calls, begun)
	if err != nil {
		return Verdict{}, err
	}
	return verdict, nil
}

func (g *Guard) observe(verdict Verdict, err *NoDecision, calls int, begun time.Time) {
	seen := Observation{Outcome: string(verdict.Decision), Calls: calls, Duration: time.Since(begun)}
	if err != nil {
		seen.Outcome, seen.Err = err.outcome(), err
		// It comes with every request.
		if _, known := g.told.LoadOrStore(err.Error(), true); err.Misconfigured && !known {
			g.options.Logger.Error("the guard is misconfigured and lets nobody in", "fault", err.Error())
		}
	}
	g.options.Observe(seen)
}

func (g *Guard) sendOne(ctx context.Context, asked *pending) {
	asked.calls, asked.err = g.retrying(ctx, func(ctx context.Context) (err error) {
		asked.response, err = g.apikeyd.ValidateKey(ctx, asked.request)
		return err
	})
}

// sendBatch answers each question, in one call. One question that the server refuses fails a batch before anything is
// decided: then each is asked alone, so that it fails only itself.
func (g *Guard) sendBatch(all []*pending) {
	ctx, cancel := context.WithTimeout(context.Background(), g.options.Deadline)
	defer cancel()
	requests := &apikeyv1.BatchValidateKeysRequest{}
	for _, asked := range all {
		requests.Requests = append(requests.Requests, asked.request)
	}
	var answer *apikeyv1.BatchValidateKeysResponse
	calls, err := g.retrying(ctx, func(ctx context.Context) (err error) {
		answer, err = g.apikeyd.BatchValidateKeys(ctx, requests)
		return err
	})
	alone := len(all) > 1 && (status.Code(err) == codes.InvalidArgument || status.Code(err) == codes.FailedPrecondition)
	if err == nil && len(answer.Responses) != len(all) {
		err = status.Error(codes.DataLoss, "")
	}
	var each sync.WaitGroup
	for i, asked := range all {
		asked.calls, asked.err = calls, err
		if err == nil {
			asked.response = answer.Responses[i]
		}
		each.Add(1)
		go func() {
			defer each.Done()
			if alone {
				g.sendOne(ctx, asked)
			}
			close(asked.done)
		}()
	}
	each.Wait()
}

// retrying calls again after UNAVAILABLE, and once after UNAUTHENTICATED when the key file holds another key by then.
func (g *Guard) retrying(ctx context.Context, call func(context.Context) error) (calls int, err error) {
	key, renewed := g.key.current(), false
	for calls, tries := 1, 1; ; calls++ {
		// Nothing of the guarded request's own metadata goes along.
		err = call(metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+key)))
		switch code := status.Code(err); {
		case code == codes.Unauthenticated && !renewed:
			newer := g.key.reread()
			if newer == key {
				return calls, err
			}
			key, renewed = newer, true
		case code == codes.Unavailable && tries < maxCalls:
			_, wait := detailsOf(err)
			if !pause(ctx, max(wait, rand.N(firstPause<<(tries-1)))) {
				return calls, err
			}
			tries++
		default:
			return calls, err
		}
	}
}

// pause waits. It does not begin to when the deadline comes first. It is false when there is no time for another call.
func pause(ctx context.Context, wait time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
