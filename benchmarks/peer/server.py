"""FastAPI, pydantic and SQLAlchemy's async ORM, in the manner of FastAPI's full-stack template.

The session is looked up in the database by a dependency, on every call.
"""

import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import DateTime, ForeignKey, String, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

dsn = os.environ["PEER_DSN"].removeprefix("postgresql://")
engine = create_async_engine(f"postgresql+psycopg://{dsn}", pool_size=8, max_overflow=0)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(120))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Session(Base):
    __tablename__ = "sessions"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    token_hash: Mapped[bytes]
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    status: Mapped[str] = mapped_column(String(16))


class Task(Base):
    __tablename__ = "tasks"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    title: Mapped[str] = mapped_column(String(256))
    description: Mapped[str]
    completed: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    created_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class TaskPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: uuid.UUID
    title: str
    description: str
    completed: bool
    created_at: datetime
    created_by: uuid.UUID


class TaskList(BaseModel):
    data: list[TaskPublic]


class TaskCreate(BaseModel):
    title: str = Field(min_length=1, max_length=256)
    description: str = Field("", max_length=1000)


async def get_db() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Database = Annotated[AsyncSession, Depends(get_db)]
Credential = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


async def current_user(db: Database, credential: Credential) -> User:
    found = await db.execute(
        select(User)
        .join(Session, Session.user_id == User.id)
        .where(
            Session.token_hash == hashlib.sha256(credential.credentials.encode()).digest(),
            Session.status == "active",
            Session.expires_at > func.now(),
            User.deleted_at.is_(None),
        )
    )
    user = found.scalar_one_or_none()
    if user is None:
        raise HTTPException(401, "invalid session")
    return user


Me = Annotated[User, Depends(current_user)]
app = FastAPI()


@app.get("/tasks/{task_id}", response_model=TaskPublic)
async def get_task(db: Database, me: Me, task_id: uuid.UUID) -> Task:
    mine = select(Task).where(Task.id == task_id, Task.created_by == me.id, Task.deleted_at.is_(None))
    task = (await db.execute(mine)).scalar_one_or_none()
    if task is None:
        raise HTTPException(404, "no such task")
    return task


@app.get("/tasks", response_model=TaskList)
async def list_tasks(db: Database, me: Me, page_size: Annotated[int, Query(ge=1, le=100)] = 20) -> dict[str, object]:
    mine = select(Task).where(Task.created_by == me.id, Task.deleted_at.is_(None))
    rows = await db.execute(mine.order_by(Task.created_at.desc()).limit(page_size))
    return {"data": rows.scalars().all()}


@app.post("/tasks", response_model=TaskPublic)
async def create_task(db: Database, me: Me, body: TaskCreate) -> Task:
    task = Task(**body.model_dump(), created_by=me.id)
    db.add(task)
    await db.commit()
    await db.refresh(task)
    return task
