// The peer in Go: grpc-go and lib/pq with prepared statements, and the session looked up by a join on every call.
//
//	peer DSN PORT [cached|canned]
//
// cached: sessions stay in memory for some seconds, as Accord's do. canned: the same, and GetTask returns a task without a query.
package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/golang/protobuf/ptypes/timestamp"
	_ "github.com/lib/pq"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"peer/tasksv1"
)

const (
	columns     = "id, title, description, completed, created_at, created_by"
	connections = 8
	defaultPage = 20
	longestPage = 100
	// Of a session in memory.
	cacheTime = 5 * time.Second
)

type hash [sha256.Size]byte

// session is a user who has signed in, known until a time.
type session struct {
	user  string
	until time.Time
}

type sessions struct {
	query  *sql.Stmt
	cached bool
	mutex  sync.RWMutex
	known  map[hash]session
}

func (s *sessions) user(token string) (string, error) {
	key := hash(sha256.Sum256([]byte(token)))
	if s.cached {
		s.mutex.RLock()
		known := s.known[key]
		s.mutex.RUnlock()
		if time.Now().Before(known.until) {
			return known.user, nil
		}
	}
	var user string
	if err := s.query.QueryRow(key[:]).Scan(&user); err != nil {
		return "", err
	}
	if s.cached {
		s.mutex.Lock()
		s.known[key] = session{user, time.Now().Add(cacheTime)}
		s.mutex.Unlock()
	}
	return user, nil
}

type userKey struct{}

// authenticate is the interceptor of all calls.
func (s *sessions) authenticate(ctx context.Context, request interface{}, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (interface{}, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	credentials := headers.Get("authorization")
	if len(credentials) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no bearer token")
	}
	user, err := s.user(strings.TrimPrefix(credentials[0], "Bearer "))
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "invalid session")
	}
	return handler(context.WithValue(ctx, userKey{}, user), request)
}

func caller(ctx context.Context) string {
	return ctx.Value(userKey{}).(string)
}

type tasks struct {
	get, list, create *sql.Stmt
	canned            *tasksv1.Task
}

func (t *tasks) GetTask(ctx context.Context, request *tasksv1.GetTaskRequest) (*tasksv1.GetTaskResponse, error) {
	if t.canned != nil {
		return &tasksv1.GetTaskResponse{Task: t.canned}, nil
	}
	task, err := scan(t.get.QueryRow(request.TaskId, caller(ctx)))
	if err != nil {
		return nil, err
	}
	return &tasksv1.GetTaskResponse{Task: task}, nil
}

func (t *tasks) ListTasks(ctx context.Context, request *tasksv1.ListTasksRequest) (*tasksv1.ListTasksResponse, error) {
	size := request.PageSize
	if size <= 0 {
		size = defaultPage
	}
	if size > longestPage {
		size = longestPage
	}
	rows, err := t.list.Query(caller(ctx), size)
	if err != nil {
		return nil, status.Error(codes.Internal, "the query failed")
	}
	defer rows.Close()
	response := &tasksv1.ListTasksResponse{}
	for rows.Next() {
		task, err := scan(rows)
		if err != nil {
			return nil, err
		}
		response.Tasks = append(response.Tasks, task)
	}
	if rows.Err() != nil {
		return nil, status.Error(codes.Internal, "the query failed")
	}
	return response, nil
}

func (t *tasks) CreateTask(ctx context.Context, request *tasksv1.CreateTaskRequest) (*tasksv1.CreateTaskResponse, error) {
	title, description := utf8.RuneCountInString(request.Title), utf8.RuneCountInString(request.Description)
	if title < 1 || title > 256 || description > 1000 {
		return nil, status.Error(codes.InvalidArgument, "title must have 1 to 256 characters, description at most 1000")
	}
	task, err := scan(t.create.QueryRow(request.Title, request.Description, caller(ctx)))
	if err != nil {
		return nil, err
	}
	return &tasksv1.CreateTaskResponse{Task: task}, nil
}

type row interface {
	Scan(...interface{}) error
}

func scan(from row) (*tasksv1.Task, error) {
	task, created := &tasksv1.Task{}, time.Time{}
	err := from.Scan(&task.Id, &task.Title, &task.Description, &task.Completed, &created, &task.CreatedBy)
	if err == sql.ErrNoRows {
		return nil, status.Error(codes.NotFound, "no such task")
	}
	if err != nil {
		return nil, status.Error(codes.Internal, "the query failed")
	}
	task.CreatedAt = &timestamp.Timestamp{Seconds: created.Unix(), Nanos: int32(created.Nanosecond())}
	return task, nil
}

func main() {
	dsn, port, variant := os.Args[1], os.Args[2], strings.Join(os.Args[3:], "")
	database, err := sql.Open("postgres", dsn)
	if err != nil {
		log.Fatal(err)
	}
	database.SetMaxOpenConns(connections)
	database.SetMaxIdleConns(connections)
	users := &sessions{
		query: prepared(database, `SELECT u.id FROM sessions s JOIN users u ON u.id = s.user_id
			WHERE s.token_hash = $1 AND s.status = 'active' AND s.expires_at > now() AND u.deleted_at IS NULL`),
		cached: variant != "",
		known:  map[hash]session{},
	}
	service := &tasks{
		get:    prepared(database, "SELECT "+columns+" FROM tasks WHERE id = $1 AND created_by = $2 AND deleted_at IS NULL"),
		list:   prepared(database, "SELECT "+columns+" FROM tasks WHERE created_by = $1 AND deleted_at IS NULL ORDER BY created_at DESC LIMIT $2"),
		create: prepared(database, "INSERT INTO tasks (title, description, created_by) VALUES ($1, $2, $3) RETURNING "+columns),
	}
	if variant == "canned" {
		service.canned = &tasksv1.Task{
			Title:       "A task made by the load generator",
			Description: strings.Repeat("A description of the work. ", 4),
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(users.authenticate))
	tasksv1.RegisterTaskServiceServer(server, service)
	log.Fatal(server.Serve(listener))
}

func prepared(database *sql.DB, query string) *sql.Stmt {
	statement, err := database.Prepare(query)
	if err != nil {
		log.Fatal(err)
	}
	return statement
}
