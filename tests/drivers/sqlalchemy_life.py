"""SQLAlchemy's life over psycopg and over asyncpg: prints what it saw."""

import asyncio
import os
import ssl
import sys
import threading

from sqlalchemy import ForeignKey, String, create_engine, func, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

URL = "//{PGUSER}:{PGPASSWORD}@{PGHOST}:{PGPORT}/{PGDATABASE}".format(**os.environ)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def say(*what):
    print(*what, flush=True)


def orm():
    engine = create_engine("postgresql+psycopg:" + URL, pool_size=5, max_overflow=5, pool_pre_ping=True)
    Base.metadata.create_all(engine)
    say(sorted(inspect(engine).get_table_names()), [c["name"] for c in inspect(engine).get_columns("book")])
    with Session(engine) as session:
        session.add_all([Author(name=f"a{i}", books=[Book(title=f"b{i}.{j}") for j in range(3)]) for i in range(100)])
        session.commit()
        query = select(Author).options(selectinload(Author.books)).order_by(Author.id).limit(3)
        for author in session.scalars(query):
            say(author.id, author.name, [book.title for book in author.books])
        try:
            with session.begin_nested():
                session.add(Author(name="a1"))
                session.flush()
        except IntegrityError as e:
            say(e.orig.sqlstate)
        session.execute(update(Book).where(Book.title.like("b1.%")).values(title=None))
        session.commit()
        say(session.execute(select(func.count(), func.count(Book.title)).select_from(Book)).one())
        session.delete(session.get(Author, 2))
        session.rollback()
        say(session.get(Author, 2).name)
        try:
            session.execute(text("SELECT 1/0"))
        except DBAPIError as e:
            say(e.orig.sqlstate)
        session.rollback()
    with engine.connect().execution_options(stream_results=True, max_row_buffer=50) as conn:
        say(sum(row[0] for row in conn.execute(text("SELECT * FROM generate_series(1, 1000)"))))
    def work(number):
        with Session(engine) as session:
            for i in range(5):
                session.add(Book(title=f"t{number}.{i}", author_id=number + 1))
                session.commit()
    threads = [threading.Thread(target=work, args=[i]) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        say(conn.execute(select(func.count()).select_from(Book)).scalar())
    engine.dispose()


async def asynchronous():
    authority = os.environ.get("PGSSLROOTCERT")
    tls = ssl.create_default_context(cafile=authority) if authority else False
    engine = create_async_engine("postgresql+asyncpg:" + URL, pool_size=5, connect_args={"ssl": tls})
    async with AsyncSession(engine) as session:
        author = (await session.scalars(select(Author).options(selectinload(Author.books)).where(Author.name == "a7"))).one()
        say(author.name, len(author.books))
        session.add(Author(name="asynchronous"))
        await session.commit()
        say(await session.scalar(select(func.count()).select_from(Author)))
    await engine.dispose()


orm()
asyncio.run(asynchronous())
