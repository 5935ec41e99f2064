// Package apikeyd guards HTTP handlers and gRPC methods with API keys that an apikeyd server validates:
//
//	guard, err := apikeyd.New(apikeyd.Options{Address: "127.0.0.1:50051", KeyFile: "guard.key"})
//	…
//	http.Handle("/traces", guard.HTTP(apikeyd.Rule{Scope: "traces:read"})(handler))
//
// Without a decision the handler is not called, whatever the error. Errors, logs and metrics contain no key.
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

// DefaultDeadline bounds the time of a question, retries included.
const DefaultDeadline = 500 * time.Millisecond

const (
	maxCalls   = 3
	firstPause = 50 * time.Millisecond
	// Longer texts are no keys; a batch of them would exceed the limit of the server.
	maxKeyInBatch = 1024
	// The connection counts as lost when the server has been silent for so long.
	silence = 2 * time.Second
)

// Options configure a Guard.
type Options struct {
	// Address of apikeyd's gRPC port: "host:port" or "http://host:port" without TLS, "https://host:port" with it.
	Address string
	// KeyFile holds the guard's own key, which needs the scope apikeys:validate. The file is read again when it changes.
	KeyFile string
	// Deadline of a question, retries included; 0 means DefaultDeadline.
	Deadline time.Duration
	// BatchWindow above 0 (1 ms, say) joins the questions of such a window into one call of at most 100.
	BatchWindow time.Duration
	// Local lets the guard decide by itself about keys with local_validation while a lease holds: no network hop, and
	// RevokeKey still waits for this guard. Its decisions are in the audit within a lease, not before the response.
	Local bool
	// LocalKeys is how many secrets are kept, as hashes; 0 means DefaultLocalKeys.
	LocalKeys int
	// TLS configures an https address; nil means the root certificates of the system.
	TLS *tls.Config
	// Observe is called once for each question when it ends, for metrics. It must not block.
	Observe func(Observation)
	// Logger gets each kind of misconfiguration of the guard once; nil means slog.Default().
	Logger *slog.Logger
	// DialOptions are added to those of the guard, for tracing and the like.
	DialOptions []grpc.DialOption
}

// Observation describes one question, for metrics.
type Observation struct {
	// Outcome is a Decision, or NO_KEY, UNAVAILABLE (no decision) or MISCONFIGURED.
	Outcome string
	// Local: the guard decided by itself.
	Local bool
	// Err is the reason when there is no decision.
	Err error
	// Calls is how many calls to apikeyd the question needed.
	Calls int
	// Duration of the question.
	Duration time.Duration
}

// Guard validates keys with apikeyd. It is safe for concurrent use; create one per server and Close it at the end.
type Guard struct {
	options Options
	key     *keyFile
	conn    *grpc.ClientConn
	apikeyd apikeyv1.ApiKeyAuthClient
	batch   *batcher
	local   *localKeys
	sync    *keySync

	// Kinds of misconfiguration that were logged.
	told sync.Map
}

// New creates a Guard. It reads the key file, but does not connect yet.
func New(options Options) (*Guard, error) {
	if options.Deadline < 0 || options.BatchWindow < 0 || options.LocalKeys < 0 {
		return nil, errors.New("apikeyd: Deadline, BatchWindow and LocalKeys must not be negative")
	}
	if options.LocalKeys == 0 {
		options.LocalKeys = DefaultLocalKeys
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
		// The guard retries by itself, since the retries of gRPC ignore RetryInfo.
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnecting, MinConnectTimeout: silence}),
		// Without keepalive, calls would wait for minutes for a server that vanished without closing the connection.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: silence}),
	}, options.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("apikeyd: Address: %w", err)
	}
	g := &Guard{options: options, key: key, conn: conn, apikeyd: apikeyv1.NewApiKeyAuthClient(conn)}
	if options.BatchWindow > 0 {
		g.batch = &batcher{window: options.BatchWindow, send: g.sendBatch}
	}
	if options.Local {
		g.local = newLocalKeys(options.LocalKeys, systemClock{start: time.Now()}, func(text string) { options.Logger.Warn(text) })
		ctx, stop := context.WithCancel(context.Background())
		g.sync = &keySync{local: g.local, send: g.sendSync, deadline: options.Deadline, stop: stop, stopped: make(chan struct{})}
		go g.sync.run(ctx)
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

// Close gives a lease back, with the decisions that were not reported yet, and closes the connection. Questions in flight
// get no decision.
func (g *Guard) Close() error {
	if g.sync != nil {
		g.sync.close()
	}
	return g.conn.Close()
}

func (g *Guard) sendSync(ctx context.Context, request *apikeyv1.SyncKeysRequest) (answer *apikeyv1.SyncKeysResponse, failure *NoDecision) {
	_, err := g.retrying(ctx, func(ctx context.Context) (err error) {
		answer, err = g.apikeyd.SyncKeys(ctx, request)
		return err
	})
	if err != nil {
		return nil, noDecisionOf(err)
	}
	return answer, nil
}

// Validate asks about one key. An error means that there is no decision, and is always a *NoDecision: treat the key as
// denied. Without an error check the verdict: a denial is not an error.
func (g *Guard) Validate(ctx context.Context, question Question) (Verdict, error) {
	begun := time.Now()
	if g.local != nil {
		if verdict, decided := g.local.decide(question); decided {
			g.observe(verdict, nil, 0, begun)
			return verdict, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, g.options.Deadline)
	defer cancel()
	asked := &pending{request: question.request(), done: make(chan struct{})}
	if g.askWithFacts(ctx, asked) {
		// The answer is there.
	} else if g.batch != nil && len(asked.request.Key) <= maxKeyInBatch {
		g.batch.add(asked)
		select {
		case <-asked.done:
		case <-ctx.Done():
			// The batch may still write to the pending question: it must not be read any more.
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
	seen := Observation{Outcome: string(verdict.Decision), Local: verdict.Local, Calls: calls, Duration: time.Since(begun)}
	if err != nil {
		seen.Outcome, seen.Err = err.outcome(), err
		// Logged once: every request would repeat it.
		if _, known := g.told.LoadOrStore(err.Error(), true); err.Misconfigured && !known {
			g.options.Logger.Error("the guard is misconfigured and lets nobody in", "fault", err.Error())
		}
	}
	g.options.Observe(seen)
}

// askWithFacts asks for the facts that a guard with a lease may keep; false when the question is still to be asked.
func (g *Guard) askWithFacts(ctx context.Context, asked *pending) bool {
	if g.local == nil {
		return false
	}
	cursor, generation, holds := g.local.moment()
	if !holds || asked.request.DryRun {
		return false
	}
	asked.request.WantFacts, asked.request.MinRevision = true, cursor
	g.sendOne(ctx, asked)
	if reason, _ := detailsOf(asked.err); reason == "REVISION_NOT_REACHED" {
		// The server that answers is behind the one of the lease: its decision counts, its facts do not.
		asked.request.WantFacts, asked.request.MinRevision, asked.err = false, 0, nil
		return false
	}
	if asked.err == nil {
		g.local.keep(asked.request.Key, asked.response, generation)
	}
	return true
}

func (g *Guard) sendOne(ctx context.Context, asked *pending) {
	asked.calls, asked.err = g.retrying(ctx, func(ctx context.Context) (err error) {
		asked.response, err = g.apikeyd.ValidateKey(ctx, asked.request)
		return err
	})
}

// sendBatch answers all questions by one call. A question that the server refuses fails the batch before any decision
// is made: then each question is sent alone, so that only the refused one fails.
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

// retrying repeats a call after UNAVAILABLE, and once after UNAUTHENTICATED if the key file has a new key by then.
func (g *Guard) retrying(ctx context.Context, call func(context.Context) error) (calls int, err error) {
	key, renewed := g.key.current(), false
	for calls, tries := 1, 1; ; calls++ {
		// The metadata of the guarded request is not passed on.
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

// pause waits, and reports whether there is time for another call. It returns at once when the deadline is earlier.
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
