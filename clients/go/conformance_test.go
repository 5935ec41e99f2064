package apikeyd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// clients/conformance/README.md describes these types.
type vectors struct {
	CallingKey     string
	RequiredScopes []struct {
		Scope string
		OK    bool
	}
	Addresses []struct {
		ForwardedFor string
		TrustedHops  int
		ClientIP     *string
	}
	Vectors []vector
}

type vector struct {
	Name  string
	Guard struct {
		Scope       string
		Cost        uint64
		TrustedHops int
		KeyHeaders  []string
		Batch       bool
		DeadlineMs  int
	}
	Only        string
	Unreachable bool
	Steps       []step
}

type step struct {
	KeyFile  json.RawMessage
	Server   json.RawMessage
	Requests []struct {
		Headers map[string]string
		Expect  expect
	}
	Calls    *struct{ Min, Max int }
	Method   string
	Sees     map[string]any
	MinGapMs float64
}

type expect struct {
	Status       int
	GRPC         string
	Handled      bool
	Outcome      string
	Headers      map[string]string
	HeadersMatch map[string]string
	Absent       []string
	Body         json.RawMessage
}

type call struct {
	Method   string
	At       float64
	Requests []map[string]any
}

// bench is the misbehaving server, and the results of a run.
type bench struct {
	t             *testing.T
	grpc, control string

	mu       sync.Mutex
	said     bytes.Buffer
	outcomes []string
}

// Write collects the logs.
func (b *bench) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.Write(text)
}

func (b *bench) observe(seen Observation) {
	fmt.Fprintf(b, "%+v\n", seen)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outcomes = append(b.outcomes, seen.Outcome)
}

func (b *bench) script(server json.RawMessage) {
	request, _ := http.NewRequest(http.MethodPut, "http://"+b.control+"/script", bytes.NewReader(server))
	response, err := http.DefaultClient.Do(request)
	if err != nil || response.StatusCode != http.StatusNoContent {
		b.t.Fatal(err, response)
	}
	response.Body.Close()
}

func (b *bench) seen() (calls []call) {
	response, err := http.Get("http://" + b.control + "/seen")
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&calls); err != nil {
		b.t.Fatal(err)
	}
	return calls
}

// told is the response that a client got by HTTP or gRPC.
type told struct {
	status  int
	code    codes.Code
	message string
	headers map[string]string
	body    string
	handled int
}

// One for each transport.
type misbehaving []struct{ GRPC, Control string }

func conformance(t *testing.T) (vectors, misbehaving) {
	folder, address := os.Getenv("APIKEYD_CONFORMANCE"), os.Getenv("APIKEYD_MISBEHAVING")
	if folder == "" {
		t.Skip("test/clients/go.test.ts runs this beside a server")
	}
	var all vectors
	var addresses misbehaving
	text, err := os.ReadFile(filepath.Join(folder, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(address), &addresses); err != nil {
		t.Fatal(err)
	}
	return all, addresses
}

func TestConformanceScopes(t *testing.T) {
	all, _ := conformance(t)
	for _, each := range all.RequiredScopes {
		if err := (Rule{Scope: each.Scope}).Check(); (err == nil) != each.OK {
			t.Errorf("%q: %v", each.Scope, err)
		}
	}
}

func TestConformanceAddresses(t *testing.T) {
	all, _ := conformance(t)
	for _, each := range all.Addresses {
		rule := Rule{TrustedHops: each.TrustedHops}
		ip, err := rule.clientIP(func(string) []string { return []string{each.ForwardedFor} }, "192.0.2.1:1")
		if (err == nil) != (each.ClientIP != nil) || err == nil && ip != *each.ClientIP {
			t.Errorf("%q: %q, %v", each.ForwardedFor, ip, err)
		}
	}
}

func TestConformance(t *testing.T) {
	all, addresses := conformance(t)
	for i, transport := range []string{"http", "grpc", "stream"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			for _, each := range all.Vectors {
				if each.Only == "http" && transport != "http" {
					continue
				}
				t.Run(each.Name, func(t *testing.T) {
					b := &bench{t: t, grpc: addresses[i].GRPC, control: addresses[i].Control}
					b.run(all.CallingKey, each, transport)
				})
			}
		})
	}
}

func (b *bench) run(callingKey string, vector vector, transport string) {
	keyFile := filepath.Join(b.t.TempDir(), "guard.key")
	if err := os.WriteFile(keyFile, []byte(callingKey), 0o600); err != nil {
		b.t.Fatal(err)
	}
	options := Options{
		Address: b.grpc, KeyFile: keyFile, Deadline: 10 * time.Second, Observe: b.observe,
		Logger: slog.New(slog.NewTextHandler(b, nil)),
	}
	if vector.Guard.DeadlineMs > 0 {
		options.Deadline = time.Duration(vector.Guard.DeadlineMs) * time.Millisecond
	}
	if vector.Guard.Batch {
		options.BatchWindow = 5 * time.Millisecond
	}
	if vector.Unreachable {
		listener, _ := net.Listen("tcp", "127.0.0.1:0")
		options.Address = listener.Addr().String()
		listener.Close()
	}
	guard, err := New(options)
	if err != nil {
		b.t.Fatal(err)
	}
	defer guard.Close()
	rule := Rule{
		Scope: vector.Guard.Scope, AnyKey: vector.Guard.Scope == "", Cost: vector.Guard.Cost,
		TrustedHops: vector.Guard.TrustedHops, KeyHeaders: vector.Guard.KeyHeaders,
	}
	ask, stop := b.guarded(guard, rule, transport)
	defer stop()
	for _, step := range vector.Steps {
		b.step(step, keyFile, ask, transport)
	}
	for _, line := range strings.Split(b.said.String(), "\n") {
		if strings.Contains(line, "audit_v1_") {
			b.t.Errorf("a key was said: %s", line)
		}
	}
}

func (b *bench) step(step step, keyFile string, ask func(map[string]string) told, transport string) {
	b.outcomes = nil
	if len(step.KeyFile) > 0 {
		var content *string
		if err := json.Unmarshal(step.KeyFile, &content); err != nil {
			b.t.Fatal(err)
		}
		if content == nil {
			os.Remove(keyFile)
		} else {
			os.WriteFile(keyFile+".new", []byte(*content), 0o600)
			os.Rename(keyFile+".new", keyFile)
		}
	}
	if step.Server != nil {
		b.script(step.Server)
	}
	answers := make([]told, len(step.Requests))
	var all sync.WaitGroup
	for i, request := range step.Requests {
		all.Add(1)
		go func() {
			defer all.Done()
			answers[i] = ask(request.Headers)
		}()
	}
	all.Wait()
	var outcomes []string
	for i, request := range step.Requests {
		outcomes = append(outcomes, request.Expect.Outcome)
		b.check(request.Expect, answers[i], transport)
		fmt.Fprintf(b, "%+v\n", answers[i])
	}
	slices.Sort(outcomes)
	slices.Sort(b.outcomes)
	if !slices.Equal(outcomes, b.outcomes) {
		b.t.Errorf("the hook was told %v, not %v", b.outcomes, outcomes)
	}
	if step.Calls == nil {
		return
	}
	b.checkCalls(step)
}

func (b *bench) checkCalls(step step) {
	calls := b.seen()
	if len(calls) < step.Calls.Min || len(calls) > step.Calls.Max {
		b.t.Errorf("%d calls, not %d to %d", len(calls), step.Calls.Min, step.Calls.Max)
	}
	for _, call := range calls {
		if step.Method != "" && !strings.HasSuffix(call.Method, "/"+step.Method) {
			b.t.Errorf("called %s", call.Method)
		}
	}
	if len(calls) > 1 && calls[1].At-calls[0].At < step.MinGapMs {
		b.t.Errorf("called again after %v ms", calls[1].At-calls[0].At)
	}
	for name, value := range step.Sees {
		if got := calls[len(calls)-1].Requests[0][name]; got != value {
			b.t.Errorf("%s is %v, not %v", name, got, value)
		}
	}
}

func (b *bench) check(expect expect, got told, transport string) {
	wantHandled := 0
	if expect.Handled {
		wantHandled = 1
	}
	if got.handled != wantHandled {
		b.t.Errorf("the handler was called %d times", got.handled)
	}
	limitsOnly := func(name string) bool {
		return transport == "http" || strings.HasPrefix(name, "ratelimit") || name == "retry-after"
	}
	for name, value := range expect.Headers {
		if limitsOnly(name) && got.headers[name] != value {
			b.t.Errorf("%s is %q, not %q", name, got.headers[name], value)
		}
	}
	for name, pattern := range expect.HeadersMatch {
		if limitsOnly(name) && !regexp.MustCompile("^(?:"+pattern+")$").MatchString(got.headers[name]) {
			b.t.Errorf("%s is %q, not %s", name, got.headers[name], pattern)
		}
	}
	for _, name := range expect.Absent {
		if value, there := got.headers[name]; limitsOnly(name) && there {
			b.t.Errorf("%s is there: %q", name, value)
		}
	}
	var word struct{ Error string }
	if expect.Body != nil {
		if err := json.Unmarshal(expect.Body, &word); err != nil {
			b.t.Fatal(err)
		}
	}
	if transport != "http" {
		if name := codeName(got.code); name != expect.GRPC || got.message != word.Error {
			b.t.Errorf("%s %q, not %s %q", name, got.message, expect.GRPC, word.Error)
		}
		return
	}
	if got.status != expect.Status {
		b.t.Errorf("status %d, not %d", got.status, expect.Status)
	}
	if expect.Body == nil {
		return
	}
	if got.body != fmt.Sprintf(`{"error":"%s"}`, word.Error) {
		b.t.Errorf("body %s, not %s", got.body, expect.Body)
	}
	if got.headers["content-type"] != "application/json" || got.headers["cache-control"] != "no-store" {
		b.t.Errorf("headers %v", got.headers)
	}
}

func codeName(code codes.Code) string {
	return map[codes.Code]string{
		codes.OK: "OK", codes.Unauthenticated: "UNAUTHENTICATED", codes.PermissionDenied: "PERMISSION_DENIED",
		codes.ResourceExhausted: "RESOURCE_EXHAUSTED", codes.Unavailable: "UNAVAILABLE", codes.Internal: "INTERNAL",
	}[code]
}

func (b *bench) guarded(guard *Guard, rule Rule, transport string) (func(map[string]string) told, func()) {
	if transport == "http" {
		return b.guardedHTTP(guard, rule)
	}
	return b.guardedGRPC(guard, rule, transport == "stream")
}

// handled counts the calls of the handler by request.
type counter struct {
	mu    sync.Mutex
	count map[string]int
	next  int
}

func (c *counter) begin() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	return strconv.Itoa(c.next)
}

func (c *counter) add(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[id]++
}

func (c *counter) of(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count[id]
}

func (b *bench) guardedHTTP(guard *Guard, rule Rule) (func(map[string]string) told, func()) {
	handled := counter{count: map[string]int{}}
	server := httptest.NewServer(guard.HTTP(rule)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if verdict, ok := FromContext(r.Context()); !ok || !verdict.OK() {
			b.t.Error("the handler has no verdict")
		}
		handled.add(r.URL.Path[1:])
	})))
	return func(headers map[string]string) told {
		id := handled.begin()
		request, _ := http.NewRequest(http.MethodGet, server.URL+"/"+id, nil)
		request.Header.Set("User-Agent", "test")
		for name, value := range headers {
			request.Header.Set(name, latin1(value))
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			b.t.Error(err)
			return told{}
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		said := map[string]string{}
		for name := range response.Header {
			said[strings.ToLower(name)] = response.Header.Get(name)
		}
		return told{status: response.StatusCode, headers: said, body: string(body), handled: handled.of(id)}
	}, server.Close
}

func latin1(text string) string {
	var bytes []byte
	for _, character := range text {
		bytes = append(bytes, byte(character))
	}
	return string(bytes)
}

type health struct {
	healthv1.UnimplementedHealthServer
	*counter
}

func (h health) Check(_ context.Context, request *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	h.add(request.Service)
	return &healthv1.HealthCheckResponse{}, nil
}

func (h health) Watch(request *healthv1.HealthCheckRequest, stream healthv1.Health_WatchServer) error {
	if _, ok := FromContext(stream.Context()); ok {
		h.add(request.Service)
	}
	return stream.Send(&healthv1.HealthCheckResponse{})
}

func (b *bench) guardedGRPC(guard *Guard, rule Rule, stream bool) (func(map[string]string) told, func()) {
	server := grpc.NewServer(
		grpc.UnaryInterceptor(guard.UnaryServerInterceptor(Rules{"/grpc.health.v1.Health/Check": rule})),
		grpc.StreamInterceptor(guard.StreamServerInterceptor(Rules{"/grpc.health.v1.Health/*": rule})),
	)
	handled := &counter{count: map[string]int{}}
	healthv1.RegisterHealthServer(server, health{counter: handled})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	go server.Serve(listener)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	client := healthv1.NewHealthClient(conn)
	ask := func(headers map[string]string) told {
		request := &healthv1.HealthCheckRequest{Service: handled.begin()}
		ctx := metadata.NewOutgoingContext(context.Background(), metadata.New(headers))
		var header, trailer metadata.MD
		var err error
		if stream {
			header, trailer, err = watch(ctx, client, request)
		} else {
			_, err = client.Check(ctx, request, grpc.Header(&header), grpc.Trailer(&trailer))
		}
		said := map[string]string{}
		place := trailer
		if err == nil {
			place = header
		}
		for _, name := range []string{"ratelimit", "ratelimit-policy"} {
			if values := place.Get(name); len(values) > 0 {
				said[name] = values[0]
			}
		}
		for _, detail := range status.Convert(err).Details() {
			if info, ok := detail.(*errdetails.RetryInfo); ok {
				said["retry-after"] = strconv.FormatInt(info.RetryDelay.Seconds, 10)
			}
		}
		return told{
			code: status.Code(err), message: status.Convert(err).Message(), headers: said,
			handled: handled.of(request.Service),
		}
	}
	return ask, func() { conn.Close(); server.Stop() }
}

func watch(
	ctx context.Context, client healthv1.HealthClient, request *healthv1.HealthCheckRequest,
) (header, trailer metadata.MD, err error) {
	stream, err := client.Watch(ctx, request)
	for err == nil {
		_, err = stream.Recv()
	}
	header, _ = stream.Header()
	if err == io.EOF {
		err = nil
	}
	return header, stream.Trailer(), err
}
